"""What kpod_lightning costs beside its peers: `python -m benchmarks [SECTION ...]` measures and writes the tables."""
