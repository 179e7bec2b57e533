"""`kpod weights export`: the token weights of a run's loss as a file that weights.kind=file reads."""

import argparse

from kpod_lightning.commands.arguments import Verbs, a_file, a_path
from kpod_lightning.distributed.console import console


def add(verbs: Verbs) -> None:
    """Beside ``weights``, a verb of the pipeline that commands/run.py adds, as `rationales report` is to its own."""
    command = verbs.add_parser(
        "weights export", help="write the token weights of a run as a file for weights.kind=file"
    )
    command.add_argument("run", type=a_path)
    command.add_argument("--out", type=a_file, metavar="FILE", required=True, help="file of weights, .jsonl")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.runs.folder import load_run_config

    load_run_config(arguments.run)  # a folder that is no run is refused before torch is imported
    from kpod_lightning.runs.weights_file import export_weights

    number = export_weights(arguments.run, arguments.out)
    console.print(
        f"{arguments.out}: weights of {number} rationales, as the loss has them. To train with them: weights.kind=file "
        f"file.path={arguments.out} weights.floor=0 weights.rescale=none weights.permuted=false",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    return 0
