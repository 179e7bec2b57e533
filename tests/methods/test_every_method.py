"""Every method, token weighting and curriculum with both families: as adapters, on two ranks, packed, and killed.

Each cell of this table is a test, for example ``scotd-tiny-t5-resumed``. Its run is compared with an unbroken one of
the same arm that trains all parameters on one rank, packed. A method that the package ships is in the table already.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import apart
import pytest
import small_runs
import torch
from small_runs import EXPERIMENT, student_of, write_distributions

from kpod_lightning.__main__ import main
from kpod_lightning.curricula.base import SHIPPED as CURRICULA
from kpod_lightning.keypoints.base import SHIPPED as WEIGHTINGS
from kpod_lightning.keypoints.sufficiency import Sufficiency
from kpod_lightning.methods.base import SHIPPED as METHODS
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.runs.metrics import UNITS
from kpod_lightning.store.json_lines import load_jsonl
from kpod_lightning.students.student import load_student

SMALL = [
    *small_runs.SMALL,
    "data.num_train=8",
    "data.num_validation=1",
    "data.num_test=1",
    "evaluation.max_new_tokens=4",
    "evaluation.every=2",
    "optim.batch_size=4",
    "optim.lr=1e-4",  # at the experiment's 3e-3 rounding grows with every step
    "launch.accelerator=cpu",
]
LEARNED = [
    "data.num_train=12",  # of fewer than ten no weights are learned
    "weights.num_train=null",
    "weights.num_held_out=2",
    "weights.warmup_epochs=1",
    "weights.epochs=1",
    "weights.batch_size=4",
]
OWN: Mapping[str, Sequence[str]] = {
    "kpod": LEARNED,
    "scotd": ["rationales.num_per_problem=2"],
    "mcc_kd": ["rationales.num_per_problem=3", "mcc_kd.num_kept=2"],
    "specialized": ["specialized.num_demos=1"],
    "weights-learned": LEARNED,
    # In the first step all differences are rounding, and could be others on other ranks.
    "weights-excess": ["weights.start_epoch=1"],
    "weights-power": ["power.alpha=0.5"],  # 1 is dft
    "curriculum-self_paced": ["self_paced.num_passes=2", "self_paced.dropout=0.004"],
    "curriculum-prefix_adaptive": ["prefix_adaptive.whole_from=1"],  # of two epochs one has a measurement behind it
}
"""Settings of an arm beside those that name it."""

ROUNDING = (5e-5, 5e-3)
"""Relative tolerance of losses, and tolerance of the students' distance as a share of the way that the training went.
Ten times what was seen; weights that each rank rescales by a mean of its own make 3e-4 and 5e-2."""

TOLERANCES = {"curriculum-self_paced": (1e-2, 0.3)}
"""Of arms that compare the targets of a micro-batch and drop other numbers in it (docs/methods.md), few here."""

STUDENTS = ["tiny-llama", "tiny-t5"]
RANK = 2
"""Of the adapters."""


def arms() -> dict[str, list[str]]:
    """Settings of every arm, by its name."""
    found = {name: [f"method={name}"] for name in METHODS}
    found["specialized-distribution"] = [
        "method=specialized",
        "specialized.match=distribution",
        "specialized.formats=[answer,cot]",
        "rationales.source=recorded",
        "rationales.teacher=TEACHER",
    ]
    for name in WEIGHTINGS:
        found[f"weights-{name}"] = ["method=kpod", "curriculum=none", f"weights.kind={name}"]
    for name in CURRICULA:
        found[f"curriculum-{name}"] = ["method=kpod", "weights.kind=uniform", f"curriculum={name}"]
    del found["curriculum-none"]  # is weights-uniform
    return {name: [*words, *OWN.get(name, [])] for name, words in found.items()}


ARMS = arms()


class Runs:
    """Runs of the table, each done once, and the files that they read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher = folder / "teacher.jsonl"
        write_distributions(self.teacher, 8)

    def words(self, arm: str, student: str, way: str, *settings: str) -> list[str]:
        """A run of an arm: its folder and its settings."""
        words = [word.replace("TEACHER", str(self.teacher)) for word in ARMS[arm]]
        if arm == "weights-file":
            words.append(f"file.path={self.exported(student)}")
        # Weights that are computed in the step are rescaled by the mean of a micro-batch: another one on each rank.
        if method_of(load_experiment(None, words)).weighting.is_in_step:
            words.append("weights.rescale=none")
        return [str(self.of(arm, student, way)), *SMALL, f"student.name={student}", *words, *settings]

    def of(self, arm: str, student: str, way: str) -> Path:
        """The folder of a run. Runs beside each other share what they make before the training."""
        beside = "shared" if way in ("unbroken", "lora", "resumed") else way
        return self.folder / f"{arm}-{student}" / beside / way

    def done(self, arm: str, student: str, way: str, *settings: str) -> Path:
        folder = self.of(arm, student, way)
        if not (folder / "student").exists():
            words = self.words(arm, student, way, *settings)
            assert main(["run", EXPERIMENT, "--until", "train", "--run", *words]) == 0
        return folder

    def unbroken(self, arm: str, student: str) -> Path:
        return self.done(arm, student, "unbroken", "optim.packing=true")

    def exported(self, student: str) -> Path:
        """A file of the weights that are 1 and 0.3."""
        file = self.folder / f"{student}.jsonl"
        if not file.exists():
            assert main(["weights", "export", str(self.unbroken("weights-numbers", student)), "--out", str(file)]) == 0
        return file


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sufficiency, "reason", None)  # as in the runs of ``apart``
        yield Runs(tmp_path_factory.mktemp("table"))


# ---- What is compared ----


def losses_of(folder: Path) -> list[dict[str, float]]:
    """What each epoch logged of its training, but its speed."""
    rows = [row for row in load_jsonl(folder / "metrics.jsonl") if "train/nats_per_token" in row]
    return [{key: value for key, value in row.items() if key != "train/tokens_per_second"} for row in rows]


def parameters(student: str) -> dict[str, torch.Tensor]:
    return load_student(student).model.state_dict()


def distance(folder: Path, other: Path, student: str) -> float:
    """How far two trained students lie apart, as a share of the way that the training of the second one went."""
    start, one, two = (parameters(name) for name in (student, str(folder / "student"), str(other / "student")))

    def apart_by(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return float(sum((a[name] - b[name]).double().square().sum() for name in start)) ** 0.5

    return apart_by(one, two) / apart_by(two, start)


# ---- The ways ----

FAST = {
    ("scott", "tiny-t5", "lora"),
    ("step_by_step", "tiny-llama", "ddp"),
    ("mcc_kd", "tiny-llama", "packed"),
    ("step_by_step", "tiny-llama", "resumed"),
}
"""One cell of each way but fsdp."""


def every_cell(*ways: str) -> pytest.MarkDecorator:
    """A test for each arm and family, and where there are several ways for each of them."""
    cells = [
        pytest.param(
            *(arm, student, *([way] if len(ways) > 1 else [])),
            id="-".join((arm, student, way)),
            marks=[] if (arm, student, way) in FAST else pytest.mark.slow,
        )
        for arm, student, way in product(ARMS, STUDENTS, ways)
    ]
    return pytest.mark.parametrize(("arm", "student", *(["strategy"] if len(ways) > 1 else [])), cells)


@every_cell("lora")
def test_adapters_learn_and_nothing_else(runs, arm, student):
    """The student that is written differs from the one that came by matrices of the adapters' rank."""
    folder = runs.done(arm, student, "lora", f"student.lora_rank={RANK}")
    rows = losses_of(folder)
    assert rows[0]["train/nats_per_token"] != rows[-1]["train/nats_per_token"]
    assert {name for row in rows for name in row} <= {*UNITS, "step"}
    start, found = parameters(student), parameters(str(folder / "student"))
    changes = {name: (found[name] - start[name]).double() for name in start}
    changed = {name: change for name, change in changes.items() if change.any()}
    assert changed and found.keys() == start.keys() and not list((folder / "student").glob("adapter*"))
    for name, change in changed.items():
        values = torch.linalg.svdvals(change)
        assert values[RANK] < 1e-3 * values[0], name


@every_cell("ddp", "fsdp")
def test_two_ranks_with_the_same_global_batch_learn_what_one_does(runs, arm, student, strategy):
    one, folder = runs.unbroken(arm, student), runs.of(arm, student, strategy)
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = runs.words(arm, student, strategy, "launch.devices=2", f"launch.strategy={strategy}")
    apart.on_two_ranks(["run", EXPERIMENT, "--until", "train", "--run", *words], folder)
    losses, share = TOLERANCES.get(arm, ROUNDING)
    assert losses_of(folder) == [pytest.approx(row, rel=losses) for row in losses_of(one)]
    assert distance(folder, one, student) <= share


@every_cell("packed")
def test_packed_rationales_teach_what_padded_ones_do(runs, arm, student):
    one, folder = runs.unbroken(arm, student), runs.done(arm, student, "padded", "optim.packing=false")
    losses, share = TOLERANCES.get(arm, ROUNDING)
    assert losses_of(one) == [pytest.approx(row, rel=losses) for row in losses_of(folder)]
    assert distance(one, folder, student) <= share


@every_cell("resumed")
def test_killed_inside_its_first_epoch_a_run_goes_on_and_writes_the_same_bytes(runs, arm, student):
    unbroken, folder = runs.unbroken(arm, student), runs.of(arm, student, "resumed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = runs.words(arm, student, "resumed", "optim.checkpoint_every=1")
    apart.killed_and_continued(
        ["run", EXPERIMENT, "--until", "train", "--run", *words], folder, "checkpoints/step.ckpt", found=True
    )
    assert student_of(folder) == student_of(unbroken)
