"""Measures sections, writes benchmarks/results and docs/performance.md: `python -m benchmarks training`."""

import argparse
import logging
import sys
import warnings
from pathlib import Path

from benchmarks.measure import Options, Ratio, machine, save
from benchmarks.pages import write_page
from benchmarks.sections import SECTIONS, measure_of
from kpod_lightning.store.errors import InputError


def words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; none: all")
    parser.add_argument("--data", type=Path, help="folder with gsm8k/train.jsonl; none: generated rationales")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, writes nothing")
    parser.add_argument("--students", nargs="+", default=(), help="of the training section")
    parser.add_argument("--page", action="store_true", help="only write docs/performance.md, from what was measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--against", type=Path, help="root of another checkout: compares the phases of a whole run")
    return parser


def line(ratio: Ratio) -> str:
    target = {None: "", True: "  met", False: "  NOT met"}[ratio.met]
    spread = f"{min(ratio.values):.2f} to {max(ratio.values):.2f}"
    return f"  {ratio.name:40} / {ratio.peer:30} {ratio.median:6.2f}  ({spread}){target}"


def quiet(threads: int) -> None:
    """Set torch's threads, and show nothing of what libraries print about themselves."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()


def main() -> int:
    asked = words().parse_args()
    if asked.page:
        write_page()
        return 0
    unknown = [section for section in asked.sections if section not in SECTIONS]
    if unknown:
        print(f"benchmarks: no section {unknown[0]}; there is {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    quiet(asked.threads)
    options = Options(
        data_dir=asked.data,
        quick=asked.quick,
        students=tuple(asked.students),
        threads=asked.threads,
        rounds=asked.rounds,
        against=asked.against and asked.against.resolve(),
    )
    import torch

    for section in asked.sections or [name for name in SECTIONS if name != "gpu" or torch.cuda.is_available()]:
        print(section, flush=True)
        about, ratios = machine(options), []
        for ratio in measure_of(section)(options):
            ratios.append(ratio)
            print(line(ratio), flush=True)
            if not asked.quick:
                save(section, ratios, about)  # what was measured stays, whatever comes after
    if not asked.quick:
        write_page()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)
