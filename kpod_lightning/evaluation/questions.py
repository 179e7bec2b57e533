"""How many rationales the questions of a run have, for the reports of methods that want several."""

from collections import Counter
from pathlib import Path

from kpod_lightning.evaluation.sections import Section, Table
from kpod_lightning.store.json_lines import JsonLines

RATIONALES = "rationales.jsonl"


def rationales_a_question(folder: Path) -> list[Section]:
    """A table of how many questions have how many rationales; nothing before rationales were selected.

    Args:
        folder: of the run.
    """
    if not (folder / RATIONALES).is_file():
        return []
    of_question = Counter(row["problem_id"] for row in JsonLines(folder / RATIONALES))
    counts = Counter(of_question.values())
    mean = of_question.total() / max(1, len(of_question))
    sentence = f"{len(of_question)} questions have {of_question.total()} rationales, {mean:.1f} each."
    if counts[1]:
        sentence += f" {counts[1]} of them have one only."
    table = Table("rationales-a-question", {"rationales": "d", "questions": "d"}, tuple(sorted(counts.items())))
    return [Section("Rationales a question", (sentence,), table=table)]
