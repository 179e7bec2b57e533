"""The artefact of token losses before distillation, which weightings and curricula may share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from kpod_lightning.data.examples import Example
    from kpod_lightning.store.keys import Keys
    from kpod_lightning.store.ragged import Ragged

LOSSES = "losses.safetensors"
ROWS = ".losses-before"
"""Folder of the run in which the ranks leave the losses for each other."""


def loss_arrow() -> Arrow:
    """Makes the losses of the whole train set once, whoever asks for them: a weighting, a curriculum, or both."""
    return Arrow(
        verb="losses",
        artefact=LOSSES,
        settings=("optim.precision",),
        needs=("tokens",),
        make=measured,
        save=save_losses,
        shared=True,
        measures=True,
    )


def losses_before(context: Any) -> "Ragged":
    """[num_examples] rows [len(target_ids)], float32: what the undistilled student loses on every target token, in
    nats, with the whole rationale asked (c = 0), answer phrase and EOS among the targets.

    Args:
        context: a ``methods.context.Context`` in whose folder ``loss_arrow`` has been followed.

    Raises:
        InputError: the file is missing or broken, or of other examples.
    """
    import numpy as np

    keys, rows = load_losses(context.folder / LOSSES)
    if keys != context.examples.keys or not np.array_equal(np.cumsum(context.examples.num_targets), rows.ends):
        raise InputError(f"{context.folder / LOSSES} is of other examples: make it again with --redo")
    return rows


def measured(context: Any) -> "tuple[Keys, Ragged]":
    """The losses with the examples' keys, measured on all ranks.

    Raises:
        InputError: a loss is not finite.
    """
    import numpy as np

    from kpod_lightning.store.ragged import Ragged
    from kpod_lightning.students.token_losses import token_losses

    examples = context.examples
    rows = token_losses(context.config, context.reading(), examples, context.folder / ROWS)
    return examples.keys, Ragged.stored(_finite(rows, examples), np.float32)


def _finite(rows: "Sequence[np.ndarray]", examples: "Sequence[Example]") -> "Iterator[np.ndarray]":
    import numpy as np

    for row, example in zip(rows, examples, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"token losses before distillation: problem {example.key[0]}, rationale {example.key[1]}: a token's "
                "loss is not finite; try optim.precision=32-true"
            )
        yield row


def save_losses(path: Path, made: "tuple[Keys, Ragged]") -> None:
    """Write a safetensors file: flat losses, ends of the rows, keys. The ranks' own files are deleted."""
    import shutil

    import numpy as np
    from safetensors.numpy import save_file

    keys, rows = made
    save_file(
        {
            "losses": np.ascontiguousarray(rows.values, np.float32),
            "ends": np.ascontiguousarray(rows.ends, np.int64),
            "problem_ids": np.ascontiguousarray(keys.ids),
            "problem_id_ends": np.ascontiguousarray(keys.ends, np.int64),
            "samples": np.ascontiguousarray(keys.samples, np.int64),
        },
        path,
    )
    # Ranks of this machine may still have the files open, and some file systems then keep them a while.
    shutil.rmtree(path.parent / ROWS, ignore_errors=True)


def load_losses(path: Path) -> "tuple[Keys, Ragged]":
    """Open what ``save_losses`` wrote; losses are read when a row is asked for.

    Raises:
        InputError: the file is missing, broken or no file of token losses.
    """
    from safetensors import SafetensorError, safe_open

    from kpod_lightning.store.keys import Keys
    from kpod_lightning.store.ragged import Ragged

    try:
        file = safe_open(path, framework="numpy")  # kept open by the slice, which reads no more than is asked for
        keys = Keys(*(file.get_tensor(name) for name in ("problem_ids", "problem_id_ends", "samples")))
        ends, losses = file.get_tensor("ends"), file.get_slice("losses")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no file of token losses ({error}); make it again with --redo") from error
    if len(keys) != len(ends) or losses.get_shape() != [int(ends[-1]) if len(ends) else 0]:
        raise InputError(f"{path}: its counts do not agree; make it again with --redo")
    return keys, Ragged(losses, ends)
