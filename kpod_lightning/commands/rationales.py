"""`kpod rationales`: an order to a teacher, and `rationales report|filter|merge` on the files that teachers write."""

import argparse
from typing import TYPE_CHECKING

from kpod_lightning.commands import run
from kpod_lightning.commands.arguments import Verbs, a_file, a_path, add_experiment, add_settings, number
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.preemption import listening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kpod_lightning.data.problems import Problem


def add(verbs: Verbs) -> None:
    """Also gives ``rationales``, a verb of the pipeline that commands/run.py has added, the options of an order."""
    asks = verbs.choices["rationales"]
    asks.add_argument("--out", type=a_file, metavar="FILE", help="file of samples that teacher= writes, .jsonl")
    asks.add_argument("--dry-run", action="store_true", help="say what it would cost, and ask for nothing")
    asks.add_argument("--shard", metavar="PART/PARTS", help="of several that share the work, e.g. 1/4")
    asks.set_defaults(main=main)

    looks = verbs.add_parser("rationales report", help="what a file of samples holds: a table, and a page to read")
    add_experiment(looks)
    looks.add_argument("file", type=a_path, help="file of samples, .jsonl")
    looks.add_argument("--out", type=a_file, metavar="FILE", help="page to write (default: FILE.html)")
    add_settings(looks, "data.dir=DIR")
    looks.set_defaults(main=report)

    keeps = verbs.add_parser("rationales filter", help="keep what is right, whole, and not nearly the same")
    add_experiment(keeps)
    keeps.add_argument("file", type=a_path, help="file of samples, .jsonl")
    keeps.add_argument("--out", type=a_file, metavar="FILE", required=True, help="for rationales.teacher=FILE, .jsonl")
    near = "share of 3-grams that near-duplicates have in common"
    keeps.add_argument("--near", type=number("--near", float, 0, 1), default=0.8, help=near)
    most = "most rationales kept of a problem (default: all)"
    keeps.add_argument("--most", type=number("--most", int, 1), metavar="K", help=most)
    add_settings(keeps, "data.dir=DIR")
    keeps.set_defaults(main=keep)

    merges = verbs.add_parser("rationales merge", help="one file of samples from those of --shard")
    merges.add_argument("out", type=a_file, help="file of samples, .jsonl")
    merges.add_argument("parts", type=a_path, nargs="+", help="files that --shard has written")
    merges.set_defaults(main=merge)


def main(arguments: argparse.Namespace) -> int:
    """Let a teacher write, where one is asked to; otherwise run the pipeline up to the rationales."""
    return order(arguments) if is_order(arguments) else run.main(arguments)


def is_order(arguments: argparse.Namespace) -> bool:
    """Whether a teacher is to write. The experiment file does not count: it may name who wrote its rationales."""
    asked = any(pair.startswith(("teacher=", "teacher.name=")) for pair in arguments.settings)
    return asked or arguments.dry_run or arguments.out is not None or arguments.shard is not None


def order(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import load_experiment
    from kpod_lightning.teachers.order import check_order, order, parse_shard

    config = load_experiment(arguments.experiment, arguments.settings)
    check_order(config, arguments.out, arguments.dry_run)
    if (config.teacher.name or "").startswith("local:") and not arguments.dry_run:
        code = run.started_on_devices(config.launch, arguments)
        if code is not None:
            return code
    shard = (1, 1) if arguments.shard is None else parse_shard(arguments.shard)
    with listening():
        order(config, arguments.out, shard=shard, dry_run=arguments.dry_run)
    return 0


def report(arguments: argparse.Namespace) -> int:
    from kpod_lightning.teachers.samples.page import print_statistics, report_samples

    statistics = report_samples(arguments.file, train_problems(arguments), arguments.out)
    print_statistics(statistics, console)
    print(f"page: {arguments.out or arguments.file.with_suffix('.html')}")
    return 0


def keep(arguments: argparse.Namespace) -> int:
    from kpod_lightning.teachers.samples.filter import filter_samples
    from kpod_lightning.teachers.samples.page import print_statistics

    problems = train_problems(arguments)
    kept = filter_samples(arguments.file, problems, arguments.out, threshold=arguments.near, most=arguments.most)
    print_statistics(kept, console)
    print(f"train on them: rationales.source=recorded rationales.teacher={arguments.out}")
    return 0


def merge(arguments: argparse.Namespace) -> int:
    from kpod_lightning.teachers.samples.merge import merge_samples

    merged = merge_samples(arguments.out, arguments.parts)
    twice = f", {merged.num_duplicates} of the parts' rows stood twice" if merged.num_duplicates else ""
    print(f"{arguments.out}: {merged.num_rows} samples, {merged.cost:.4f} US dollars{twice}")
    return 0


def train_problems(arguments: argparse.Namespace) -> "Sequence[Problem]":
    """The training problems of the experiment that a file of samples answers."""
    from kpod_lightning.data.benchmarks import read_problems
    from kpod_lightning.methods.base import load_experiment

    return read_problems(load_experiment(arguments.experiment, arguments.settings))["train"]
