"""KPOD, the method whole: learned token weights, step difficulties, the in-rationale schedule."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from kpod_lightning.config import RunConfig, num_stages
from kpod_lightning.curricula.pictures import describe_difficulties, describe_schedule
from kpod_lightning.curricula.schedule import Schedule
from kpod_lightning.keypoints.pictures import describe_weights
from kpod_lightning.keypoints.table import TokenWeights, WeightTable
from kpod_lightning.runs.folder import Run
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.students.student import contents


@dataclass(frozen=True)
class Fingerprints:
    """Of what the method makes before the student learns; None where it makes no such thing.

    An ablation shares what it does not change: weights are the same whether or not the loss uses them.
    """

    weights: str | None = None
    difficulties: str | None = None
    schedule: str | None = None
    training: str | None = None


def curriculum_fingerprints(config: RunConfig, data: str, student: str) -> Fingerprints:
    if config.method != "kpod":
        return Fingerprints()
    settings = asdict(config.weights)
    use = {
        name: settings.pop(name)
        for name in ("in_loss", "in_difficulty", "permuted", "floor", "rescale", "if_not_found")
    }
    uses_difficulty = config.schedule.progressive
    learned = use["in_loss"] or (use["in_difficulty"] and uses_difficulty)
    answer_model = contents(config.weights.answer_model) if config.weights.answer_model else None
    made_of = (data, student, settings, answer_model, config.seed, config.optim.precision)
    weights = fingerprint(*made_of) if learned else None
    by_weight = use["in_difficulty"] and uses_difficulty
    difficulties = (
        fingerprint(data, student, config.optim.precision, weights if by_weight else None, use["if_not_found"])
        if uses_difficulty
        else None
    )
    settings_of_schedule = asdict(config.schedule) | {"num_stages": num_stages(config)}
    schedule = fingerprint(difficulties, settings_of_schedule, config.seed) if difficulties else None
    training = fingerprint(weights if use["in_loss"] else None, use, schedule)
    return Fingerprints(weights, difficulties, schedule, training)


def with_texts(table: WeightTable, rationales: JsonLines) -> Iterator[tuple[TokenWeights, str]]:
    """The table's rows with their texts, which have the same order; some texts are of no row, too long to train on."""
    position = 0
    for row in rationales:
        if position < len(table.keys) and table.keys[position] == (row["problem_id"], row["sample"]):
            yield table.row(position), row["rationale"]
            position += 1


def described(run: Run) -> dict[str, Any]:
    """What there is to say and to see of the method's weights, difficulties and schedule in the run folder."""
    made: dict[str, Any] = {"figures": {}}
    parts = []
    if (run.folder / "weights.safetensors").is_file():
        table = WeightTable.load(run.folder / "weights.safetensors")
        parts.append(describe_weights(table, with_texts(table, JsonLines(run.folder / "rationales.jsonl"))))
    if (run.folder / "schedule.npz").is_file():
        parts.append(describe_difficulties(JsonLines(run.folder / "difficulties.jsonl")))
        parts.append(describe_schedule(Schedule.load(run.folder / "schedule.npz")))
    for part in parts:
        made["figures"] |= part.pop("figures")
        made |= part
    return made
