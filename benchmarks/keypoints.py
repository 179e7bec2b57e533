"""Which tokens of arithmetic rationales the learned weights keep, against what they are known to be.

``python benchmarks/keypoints.py RUN [RUN ...]`` reads folders of ``kpod weights`` or ``kpod run``; prints a JSON line
each: sufficiency, mean weight of each kind of token, and AUROC of results against filler.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torchmetrics.functional.classification import binary_auroc

from kpod_lightning.config import load_config
from kpod_lightning.data.arithmetic import problems_of
from kpod_lightning.data.benchmarks import num_train_of
from kpod_lightning.keypoints.table import WeightTable


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        config = load_config(folder / "config.yaml", [])
        made = problems_of(config.data, "train", num_train_of(config.data))
        kinds = {g.problem.id: (g.problem.rationale or "", g.kinds) for g in made}
        table = WeightTable.load(folder / "weights.safetensors")
        found: dict[str, list[float]] = defaultdict(list)
        for (problem_id, _), row in table.rows.items():
            text, spans = kinds[problem_id]
            of_character = [kind for left, right, kind in spans for _ in range(left, right)]
            for (left, right), value in zip(row.spans.tolist(), row.values.tolist(), strict=True):
                first = next((i for i in range(left, right) if not text[i].isspace()), None)
                if first is not None:
                    found[of_character[first]].append(value)
        scores = torch.tensor(found["result"] + found["filler"])
        truth = torch.tensor([1] * len(found["result"]) + [0] * len(found["filler"]))
        sufficiency = table.about["sufficiency"]
        nats = sufficiency["mean_nats"]
        drawn = nats["none"] - nats[f"random {sufficiency['share']}"]
        line = {
            "student": config.student.name,
            "seed": config.seed,
            "sufficiency": sufficiency["value"],
            "interval": sufficiency["interval"],
            "sufficiency_of_random_tokens": drawn / (nats["none"] - nats["all"]),
            "nats_saved_over_random": sufficiency["over_random"],
            "reason": table.about["reason"],
            "auroc_results_against_filler": binary_auroc(scores, truth).item(),
            "mean_weight": {kind: round(sum(values) / len(values), 3) for kind, values in sorted(found.items())},
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
