"""`kpod doctor`: checks the installation and plans the memory of an experiment's devices."""
