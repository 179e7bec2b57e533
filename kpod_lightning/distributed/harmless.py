"""Warnings of Lightning that mean nothing here, for runs and for the tests. This file loads no torch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

HARMLESS_WARNINGS = (
    # Collating a batch copies a few lists, which takes less time than sending it from a worker process.
    ".*does not have many workers.*",
    # A resumed training finds the checkpoints of the interrupted one.
    ".*Checkpoint directory .* exists and is not empty.*",
    # Our sampler starts where the epoch stopped; Lightning looks for a method on the loader instead.
    ".*checkpoint that ended before the epoch ended.*",
    # The frozen block of the weight network stays in eval mode: its dropout is off.
    ".*in eval mode at the start of training.*",
    # Every rank has graded all validation problems, so there is nothing to synchronise.
    ".*recommended to use .self.log.*sync_dist=True.*",
    # Where Slurm is installed, Lightning takes a process that no srun started for a mistake; `kpod submit` uses srun.
    ".*srun. command is available on your system but is not used.*",
    # Lightning 2.6 calls a function that torch 2.13 deprecates.
    ".*LeafSpec.* is deprecated.*",
)
"""Patterns of warnings that Lightning gives in every run and that ask for no change. The tests ignore them too, and
take any other warning for an error."""


@contextmanager
def without_harmless_warnings() -> Iterator[None]:
    """Within it, ``HARMLESS_WARNINGS`` are not shown."""
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield
