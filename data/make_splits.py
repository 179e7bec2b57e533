"""Write data/splits/*.json, hashes of the questions of the published splits: ``make_splits.py DATA_DIR``."""

import json
import sys
from pathlib import Path

from kpod_lightning.data.benchmarks import BENCHMARKS, MANIFESTS, read_folder
from kpod_lightning.data.problems import question_hash

for dataset in BENCHMARKS:
    splits = read_folder(Path(sys.argv[1]), dataset)
    manifest = {split: [question_hash(problem) for problem in problems] for split, problems in splits.items()}
    (MANIFESTS / f"{dataset}.json").write_text(json.dumps(manifest, indent=0) + "\n")
    print(dataset, {split: len(hashes) for split, hashes in manifest.items()})
