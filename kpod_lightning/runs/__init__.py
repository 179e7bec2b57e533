"""Runs: the run folder, the pipeline as a loop over artefacts, tracking and the report."""
