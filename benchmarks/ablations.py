"""Which part of KPOD helps: test accuracy of runs that differ in one setting, aggregated over seeds.

``python benchmarks/ablations.py RUN [RUN ...] > docs/records/ablations.jsonl`` reads folders of finished runs and
prints a JSON line each; the table of mean ± standard deviation over seeds goes to the terminal.
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kpod_lightning.config import differences, load_config, num_stages, to_dict
from kpod_lightning.evaluation.grade import accuracy
from kpod_lightning.evaluation.statistics import mcnemar_exact
from kpod_lightning.runs.folder import load_run


def main() -> None:
    by_arm = defaultdict(list)
    for folder in map(Path, sys.argv[1:]):
        run = load_run(folder)
        default = to_dict(load_config(Path("experiments/arithmetic.yaml"), []))
        settings = to_dict(run.config)
        settings["schedule"]["num_stages"] = num_stages(run.config)
        unread = ("logging", "seed", *(("weights.", "schedule.") if run.config.method != "kpod" else ()))
        changed = [line for line in differences(settings, default) if not line.startswith(unread)]
        arm = ", ".join(line.split(", was")[0].replace(": ", "=") for line in changed)
        before, after = run.records("test-before"), run.records("test")
        result = accuracy(after)
        test = mcnemar_exact([r["right"] for r in before], [r["right"] for r in after])
        tokens = int(max(row["train/tokens_seen"] for row in run.metrics if "train/tokens_seen" in row))
        line = {
            "settings": arm,
            "seed": run.config.seed,
            "target_tokens": tokens,
            "right": result.num_right,
            "problems": result.num_problems,
            "interval": [round(bound, 4) for bound in result.interval],
            "gained": test.only_after,
            "lost": test.only_before,
        }
        print(json.dumps(line))
        by_arm[arm].append(line)
    table = Table("settings", "seeds", "% right by seed", "mean ± sd", "target tokens")
    for arm, lines in by_arm.items():
        shares = [100 * line["right"] / line["problems"] for line in lines]
        deviation = statistics.stdev(shares) if len(lines) > 1 else float("nan")
        tokens = sum(line["target_tokens"] for line in lines) / len(lines)
        seeds = " ".join(str(line["seed"]) for line in lines)
        values = " ".join(f"{share:.1f}" for share in shares)
        table.add_row(arm, seeds, values, f"{statistics.fmean(shares):.1f} ± {deviation:.1f}", f"{tokens:,.0f}")
    Console(stderr=True, width=160).print(table)


if __name__ == "__main__":
    main()
