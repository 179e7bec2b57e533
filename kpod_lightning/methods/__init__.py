"""Methods: the seam (base), the module that trains a student, and one file a method."""
