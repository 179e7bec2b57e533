"""Data: problems → answers → steps → rationales → examples → views → batches, and RationaleDataModule."""
