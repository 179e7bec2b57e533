"""Measures sections, writes their files in benchmarks/results: `python -m benchmarks training schedule`."""

import argparse
import logging
import sys
import warnings
from pathlib import Path

from benchmarks.measure import Options, Ratio, machine, save
from benchmarks.sections import SECTIONS, measure_of


def words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; none: all")
    parser.add_argument("--data", type=Path, help="folder with gsm8k/train.jsonl; none: generated rationales")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, writes nothing")
    parser.add_argument("--students", nargs="+", default=(), help="of the training section")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    return parser


def line(ratio: Ratio) -> str:
    target = {None: "", True: "  met", False: "  NOT met"}[ratio.met]
    spread = f"{min(ratio.values):.2f} to {max(ratio.values):.2f}"
    return f"  {ratio.name:40} / {ratio.peer:30} {ratio.median:6.2f}  ({spread}){target}"


def main() -> int:
    asked = words().parse_args()
    unknown = [section for section in asked.sections if section not in SECTIONS]
    if unknown:
        print(f"benchmarks: no section {unknown[0]}; there is {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(asked.threads)
    from transformers.utils import logging as transformers_logging

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    options = Options(
        data_dir=asked.data,
        quick=asked.quick,
        students=tuple(asked.students),
        threads=asked.threads,
        rounds=asked.rounds,
    )
    for section in asked.sections or SECTIONS:
        print(section, flush=True)
        about = machine(options)
        ratios = measure_of(section)(options)
        print("\n".join(map(line, ratios)), flush=True)
        if not asked.quick:
            save(section, ratios, about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
