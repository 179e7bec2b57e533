"""What another package adds to kpod_lightning, a file each; entry points give the names."""
