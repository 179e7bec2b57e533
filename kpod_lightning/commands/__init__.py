"""Commands: one file a verb of `kpod`."""
