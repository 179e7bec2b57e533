"""A table of inputs that cannot be used, each with a word that its line has to contain."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from kpod_lightning.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = str(ROOT / "experiments" / "arithmetic.yaml")

FOLDER, FIFO = object(), object()
"""Contents of a path that is no file."""


@dataclass(frozen=True)
class Link:
    """Content of a path that is a link."""

    to: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command, typed in a folder with these files."""

    words: list[str]
    says: str
    """What its line has to contain: the culprit."""
    files: dict[str, Any] = field(default_factory=dict)
    """Content by path: text, bytes, FOLDER, FIFO or a Link."""
    environment: dict[str, str] = field(default_factory=dict)
    reads: bool = False
    """Whether it is found only when the run's files are read: then the pipeline may begin."""


def put(folder: Path, files: dict[str, Any]) -> None:
    """Make the files of a case."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.to)
        elif content is FOLDER:
            path.mkdir()
        elif content is FIFO:
            os.mkfifo(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def run(*words: str, says: str, **others: Any) -> Case:
    return Case(words=["run", EXPERIMENT, "--run", "r", *words], says=says, **others)


def yaml(text: str | bytes, says: str, **others: Any) -> Case:
    return Case(words=["run", "e.yaml", "--run", "r"], files={"e.yaml": text}, says=says, **others)


# ---- Settings ----


def numeric(block: type = RunConfig, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Every setting that is a number, with dots, and whether it is an int or a float."""
    for name, kind in get_type_hints(block).items():
        if isinstance(kind, type) and is_dataclass(kind):
            yield from numeric(kind, f"{prefix}{name}.")
        elif {int, float} & {kind, *get_args(kind)} and dict not in {kind, getattr(kind, "__origin__", None)}:
            yield f"{prefix}{name}", int if int in {kind, *get_args(kind)} else float


def generated() -> Iterator[Case]:
    """Of every number: not finite, beyond any size, of another type."""
    for key, kind in numeric():
        bad = [".nan", ".inf", "-1e400", "1e30", "true", "[1]"]
        bad += ["2.5", "9" * 5000] if kind is int else ["9" * 400]
        for value in bad:
            yield run(f"{key}={value}", says=key)


SETTINGS = [
    # Numbers
    run("optim.lr=0", says="optim.lr is positive"),
    run("optim.lr=-1e-4", says="optim.lr"),
    run("optim.lr=-0.0", says="optim.lr"),
    run("optim.lr=1,5", says="optim.lr"),
    run("optim.lr=1e", says="optim.lr"),
    run("optim.lr=0x1p-4", says="optim.lr"),
    run("optim.lr=٣", says="optim.lr"),
    run("optim.lr=5e-5 # faster", "optim.epochs=1 000", says="optim.epochs"),
    run("optim.lr=null", says="optim.lr"),
    run("optim.lr=1e5", says="optim.lr is at most"),
    run("optim.epochs=0", says="optim.epochs"),
    run("optim.epochs=-3", says="optim.epochs"),
    run("optim.epochs=1.5", says="optim.epochs"),
    run("optim.epochs=ten", says="optim.epochs"),
    run("optim.epochs=yes", says="optim.epochs"),
    run("optim.epochs=null", says="optim.epochs"),
    run("optim.epochs=1_0_0x", says="optim.epochs"),
    run("optim.epochs=1:30", says="optim.epochs"),
    run("optim.epochs=2024-01-01", says="optim.epochs"),
    run("optim.epochs=10000000000000000000000", says="optim.epochs"),
    run("optim.batch_size=0", says="optim.batch_size"),
    run("optim.micro_batch_size=3", says="optim.micro_batch_size"),
    run("optim.micro_batch_size=32", says="optim.micro_batch_size"),
    run("optim.micro_batch_size=0", says="optim.micro_batch_size"),
    run("optim.weight_decay=-0.1", says="optim.weight_decay"),
    run("optim.clip_norm=-1", says="optim.clip_norm"),
    run("optim.warmup_fraction=1", says="optim.warmup_fraction"),
    run("optim.warmup_fraction=3%", says="optim.warmup_fraction"),
    run("optim.patience=0", says="optim.patience"),
    run("optim.checkpoint_every=0", says="optim.checkpoint_every"),
    run("seed=-1", says="seed"),
    run("seed=4294967296", says="seed"),
    run("seed=null", says="seed"),
    run("seed=???", says="seed"),
    run("seed=0.5", says="seed"),
    run("seed=abc", says="seed"),
    run("num_workers=-1", says="num_workers"),
    run("num_workers=100000", says="num_workers"),
    run("data.num_train=0", says="data.num_train"),
    run("data.num_train=-5", says="data.num_train"),
    run("data.num_test=all", says="data.num_test"),
    run("data.seed=-1", says="data.seed"),
    run("data.min_steps=4", says="data.min_steps"),
    run("data.min_steps=0", says="data.min_steps"),
    run("data.max_steps=1000", says="data.max_steps"),
    run("data.max_steps=-1", says="data.m"),
    run("student.max_length=0", says="student.max_length"),
    run("student.lora_rank=0", says="student.lora_rank"),
    run("student.lora_rank=8", "student.lora_alpha=-8", says="student.lora_alpha"),
    run("student.lora_rank=8", "student.lora_alpha=0", says="student.lora_alpha"),
    run("student.lora_alpha=4", says="student.lora_alpha"),
    run("student.lora_rank=10000000", says="student.lora_rank"),
    run("weights.share=0", says="weights.share"),
    run("weights.share=1", says="weights.share"),
    run("weights.floor=1", says="weights.floor"),
    run("weights.floor=-0.1", says="weights.floor"),
    run("weights.form=penalty", "weights.alpha=-1", says="weights.alpha"),
    run("weights.alpha=0.5", says="weights.alpha"),
    run("weights.hidden_size=100000000", says="weights.hidden_size"),
    run("weights.temperature=0", says="weights.temperature"),
    run("weights.final_temperature=0.1", says="weights.final_temperature"),
    run("weights.random_share=1", says="weights.random_share"),
    run("weights.warmup_epochs=-1", says="weights.warmup_epochs"),
    run("schedule.num_stages=0", says="schedule.num_stages"),
    run("schedule.growth_exponent=0", says="schedule.growth_exponent"),
    run("schedule.growth_exponent=1000", says="schedule.growth_exponent"),
    run("schedule.initial_fraction=1.01", says="schedule.initial_fraction"),
    run("schedule.initial_fraction=30", says="schedule.initial_fraction"),
    run("schedule.num_clusters=0", says="schedule.num_clusters"),
    run("schedule.step_size=0", says="schedule.step_size"),
    run("schedule.step_size=automatic", says="schedule.step_size is auto or at least 1 or null, got automatic"),
    run("schedule.step_size=1.5", says="schedule.step_size is a whole number"),
    run("schedule.diversity_scale=budget", says="schedule.diversity=12.0 is more than 1"),
    run("schedule.diversity=-1", says="schedule.diversity"),
    run("evaluation.max_new_tokens=0", says="evaluation.max_new_tokens"),
    run("evaluation.num_samples=0", says="evaluation.num_samples"),
    run("evaluation.temperature=0", says="evaluation.temperature"),
    run("evaluation.every=0", says="evaluation.every"),
    run("launch.devices=0", says="launch.devices"),
    run("launch.devices=1000", says="launch.devices"),
    run("launch.devices=all", says="launch.devices"),
    run("launch.num_nodes=0", says="launch.num_nodes"),
    run("launch.num_nodes=2", says="launch.num_nodes"),
    run("teacher.samples=0", says="teacher.samples"),
    run("teacher.budget=0", says="teacher.budget"),
    run("teacher.budget=-5", says="teacher.budget"),
    run("teacher.budget=$5", says="teacher.budget"),
    run("teacher.temperature=-0.1", says="teacher.temperature"),
    run("teacher.temperature=0", "teacher.samples=2", says="teacher.temperature"),
    run("teacher.top_p=0", says="teacher.top_p"),
    run("teacher.top_p=1.1", says="teacher.top_p"),
    run("teacher.timeout=0", says="teacher.timeout"),
    run("teacher.stop_at=3", says="teacher.stop_at"),
    run("teacher.max_tokens=0", says="teacher.max_tokens"),
    run("teacher.concurrency=0", says="teacher.concurrency"),
    run("teacher.prices.input=1", says="teacher.prices"),
    run("teacher.prices.input=-1", "teacher.prices.output=1", says="teacher.prices.input"),
    run("teacher.prices.input=.nan", "teacher.prices.output=1", says="teacher.prices.input"),
    run("teacher.prices.input=free", "teacher.prices.output=1", says="teacher.prices.input"),
    run("teacher.prices={input: 1, output: 1, per_image: 2}", says="per_image"),
    run("teacher.prices=5", says="teacher.prices"),
    # Texts and choices
    run("method=", says="method"),
    run("method=kpodd", says="method=kpodd"),
    run("method=KPOD", says="method=KPOD"),
    run("method=null", says="method"),
    run("method=[kpod]", says="method"),
    run("curriculum=hard", says="curriculum=hard"),
    run("weights.kind=magic", says="weights.kind=magic"),
    run("weights.form=budgets", says="weights.form"),
    run("weights.sample=soft", says="weights.sample"),
    run("weights.mask_place=features", says="weights.mask_place"),
    run("optim.name=sgd", says="optim.name"),
    run("optim.schedule=step", says="optim.schedule"),
    run("optim.precision=fp16", says="optim.precision"),
    run("optim.precision=16", says="optim.precision"),
    run("optim.precision=32", says="optim.precision"),
    run("optim.loss_scale=mean", says="optim.loss_scale"),
    run("optim.group_by_length=2", says="optim.group_by_length"),
    run("optim.group_by_length=maybe", says="optim.group_by_length"),
    run("paper=maybe", says="paper"),
    run("paper=1", says="paper"),
    run("paper=true", says="schedule.glove_path"),
    run("data.dataset=gsm9k", says="gsm9k"),
    run("data.dataset=own", says="rationales.source"),
    run("data.dataset=gsm8k", says="rationales.source"),
    run("data.kind=text", says="data.kind"),
    run("data.dir=''", says="data.dir"),
    run("data.dir='a\\0b'", 'data.dir="a\\0b"', says="data.dir"),
    run("data.dir=a\udcffb", says="data.dir"),
    run("data.fields=[a]", says="data.fields"),
    run("data.fields={id: null}", says="data.fields.id"),
    run("data.fields={1: a}", says="data.fields"),
    run("rationales.source=human", says="rationales.source"),
    run("rationales.source=recorded", says="rationales.teacher"),
    run("rationales.step_rule=(", says="rationales.step_rule"),
    run("rationales.step_rule=[", says="rationales.step_rule"),
    run("rationales.step_rule=*", says="rationales.step_rule"),
    run("rationales.step_rule=a{99999999999}", says="rationales.step_rule"),
    run("rationales.step_rule=''", says="rationales.step_rule"),
    run("rationales.num_per_problem=0", says="rationales.num_per_problem"),
    run("rationales.correct_only=1", says="rationales.correct_only"),
    run("schedule.vectors=glove", says="schedule.glove_path"),
    run("schedule.glove_path=g.txt", says="schedule.vectors"),
    run("schedule.solver=best", says="schedule.solver"),
    run("schedule.start=first", says="schedule.start"),
    run("evaluation.variant=best", says="evaluation.variant"),
    run("logging.wandb=online", says="logging.wandb"),
    run("logging.wandb=true", says="logging.wandb"),
    run("logging.project=''", says="logging.project"),
    run("logging.project=a/b", says="logging.project"),
    run("logging.project=50%", says="logging.project"),
    run("logging.project=" + "x" * 129, says="logging.project"),
    run("launch.strategy=dp", says="launch.strategy"),
    run("launch.strategy=single", "launch.devices=2", says="launch.strategy"),
    run("launch.cpu_offload=true", says="launch.cpu_offload"),
    run("launch.accelerator=tpu", says="launch.accelerator"),
    run("launch.accelerator=gpu", "launch.devices=200", says="launch.accelerator"),  # more than any machine has
    run("student.name=''", says="student.name"),
    run("student.name=null", says="student.name"),
    run("teacher=gpt-4", says="teacher"),
    run("teacher=openai:", says="teacher"),
    run("teacher=:m", says="teacher"),
    run("teacher=magic:m", says="teacher"),
    run("teacher.stop=[a, b, c, d, e]", says="teacher.stop"),
    run("teacher.stop=x", says="teacher.stop"),
    run("teacher.stop=['']", says="teacher.stop"),
    run("teacher.stop=[[a]]", says="teacher.stop"),
    run("teacher.thinking=hide", says="teacher.thinking"),
    run("teacher.limit_field=tokens", says="teacher.limit_field"),
    run("teacher.base_url=localhost:8000", says="teacher.base_url"),
    run("teacher.base_url=ftp://x", says="teacher.base_url"),
    run("teacher.base_url=http://", says="teacher.base_url"),
    run("teacher.base_url=http://[::1", says="teacher.base_url"),
    run("teacher.base_url=http://x:port/v1", says="teacher.base_url"),
    run("teacher.key_variable=sk-abc", says="teacher.key_variable"),
    run("teacher.extra=5", says="teacher.extra"),
]

# ---- Words of the command line ----

OVERRIDES = [
    run("optim.lrr=1", says="did you mean optim.lr?"),
    run("lr=1", says="did you mean optim.lr?"),
    run("Optim.lr=1", says="did you mean optim.lr?"),
    run("optim.epoch=3", says="did you mean optim.epochs?"),
    run("studnet.name=tiny-llama", says="did you mean student.name?"),
    run("a.b.c.d=1", says="a"),
    run("optim.lr.x=1", says="optim.lr"),
    run("optim=3", says="optim is a block of settings"),
    run("optim=[1]", says="optim is a block of settings"),
    run("optim=null", says="optim is a block of settings"),
    run("optim=", says="optim="),
    run("student=tiny-llama", says="student.name=tiny-llama"),
    run("data=gsm8k", says="data."),
    run("optim.lr=[1]", says="optim.lr"),
    run("optim.lr={a: 1}", says="optim.lr"),
    run("optim.lr=", says="optim.lr="),
    run("optim.lr= ", says="optim.lr="),
    run("=3", says="=3"),
    run("=", says="="),
    run("optim..lr=1", says="optim..lr=1"),
    run(".lr=1", says=".lr=1"),
    run("optim.=1", says="optim.=1"),
    run("optim .lr=1", says="optim .lr=1"),
    run("+optim.lr=1", says="write optim.lr=1"),
    run("++optim.lr=1", says="write optim.lr=1"),
    run("~optim.lr=1", says="write optim.lr=1"),
    run("--optim.lr=1", says="optim.lr"),
    run("-optim.lr=1", says="optim.lr"),
    run("optim.lr", says="optim.lr"),
    run("optim.lr:1", says="optim.lr:1"),
    run("optim[lr]=1", says="optim[lr]"),
    run("optim/lr=1", says="optim/lr"),
    run("optim.lr==1", says="optim.lr"),
    run("optim.epochs={", says="optim.epochs"),
    run("optim.epochs=[1", says="optim.epochs"),
    run("optim.epochs='1", says="optim.epochs"),
    run("optim.epochs=@", says="optim.epochs"),
    run("optim.epochs=!!python/name:os.system", says="optim.epochs"),
    run("optim.epochs=&a [*a]", says="optim.epochs"),
    run("optim.epochs=" + "[" * 3000, says="optim.epochs"),
    run("optim={lr: 1, lr: 2}", says="lr stands twice"),
    run("optim={lrr: 1}", says="did you mean optim.lr?"),
    run("student=x", "student.name=tiny-llama", says="student"),
    run("optim.lr=${optim.missing}", says="optim.lr"),
    run("optim.lr=${nowhere}", says="optim.lr"),
    run("optim.lr=${optim.lr}", says="refers to itself"),
    run("optim.lr=${optim.clip_norm}", "optim.clip_norm=${optim.lr}", says="refers to itself"),
    run("optim.lr=${oc.env:KPOD_NO_SUCH_VARIABLE}", says="KPOD_NO_SUCH_VARIABLE"),
    run("optim.lr=${oc.nothing:1}", says="optim.lr"),
    run("optim.lr=${", says="optim.lr"),
    run("optim.lr=${optim.name}", says="optim.lr"),
    run("optim.epochs=${optim.clip_norm}", "optim.clip_norm=2.5", says="optim.epochs"),
    run("method=${nowhere}", says="method"),
    run("\udcff=1", says="udcff"),
    run("optim.lr=1\nx", says="optim.lr"),
    run("a" * 5000 + "=1", says="aaa"),
    run("optim.lr=" + "x" * 5000, says="optim.lr"),
    run("no.such=1\x1b[31m", says="no.such"),
]

# ---- YAML ----

DEEP = "teacher:\n  extra:\n    x: " + "[" * 300 + "]" * 300 + "\n"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)

FILES = [
    yaml("", says="seed"),
    yaml("# nothing\n", says="seed"),
    yaml("null\n", says="seed"),
    yaml("method: plain\n", says="seed"),
    yaml("- 1\n- 2\n", says="e.yaml"),
    yaml("seed\n", says="e.yaml"),
    yaml("3\n", says="e.yaml"),
    yaml("true\n", says="e.yaml"),
    yaml("seed: 0\noptim: [\n", says="e.yaml:3"),
    yaml("seed: 0\noptim:\n\tlr: 1\n", says="e.yaml:3"),
    yaml("seed: 0\n optim: 1\n", says="e.yaml:2"),
    yaml("seed: 0\nseed: 1\n", says="seed stands twice"),
    yaml("seed: 0\noptim:\n  lr: 1\n  lr: 2\n", says="lr stands twice"),
    yaml("seed: 0\n---\nseed: 1\n", says="e.yaml"),
    yaml("seed: 0\n1: 2\n", says="e.yaml"),
    yaml("seed: 0\nnull: 2\n", says="e.yaml"),
    yaml("seed: 0\ntrue: 2\n", says="e.yaml"),
    yaml("seed: 0\n? [a, b]\n: 1\n", says="e.yaml"),
    yaml("seed: 0\n? {a: b}\n: 1\n", says="e.yaml"),
    yaml("seed: !!python/object/apply:os.system [ls]\n", says="e.yaml:1"),
    yaml("seed: !!python/name:os.system\n", says="e.yaml:1"),
    yaml("seed: !mine 1\n", says="e.yaml:1"),
    yaml("seed: !!int x\n", says="e.yaml"),
    yaml("seed: !!binary x\n", says="e.yaml"),
    yaml("seed: !!timestamp x\n", says="e.yaml"),
    yaml("seed: *nowhere\n", says="e.yaml:1"),
    yaml("seed: &a [*a]\n", says="e.yaml"),
    yaml("seed: 0\n" + LAUGHS, says="e.yaml"),
    yaml("seed: 0\n" + DEEP, says="e.yaml"),
    yaml("[" * 100_000, says="e.yaml"),
    yaml("seed: 0\noptim: 5\n", says="optim is a block"),
    yaml("seed: 0\noptim:\n", says="optim is a block"),
    yaml("seed: 0\nstudent: tiny-llama\n", says="student.name"),
    yaml("seed: 0\noptim:\n  lr: fast\n", says="e.yaml: optim.lr"),
    yaml("seed: 0\noptim:\n  lr: -1\n", says="e.yaml: optim.lr"),
    yaml("seed: 0\noptim:\n  lrr: 1\n", says="did you mean optim.lr?"),
    yaml("seed: 0\noptim:\n  epochs: 1.5\n", says="e.yaml: optim.epochs"),
    yaml("seed: 0\noptim:\n  epochs: .inf\n", says="e.yaml: optim.epochs"),
    yaml("seed: 0\noptim:\n  group_by_length: 'yes'\n", says="e.yaml: optim.group_by_length"),
    yaml("seed: 0\nlogging:\n  group: 1.10\n", says="needs quotes"),
    yaml("seed: 0\nlogging:\n  group: no\n", says="needs quotes"),
    yaml("seed: 0\nlogging:\n  group: [a]\n", says="e.yaml: logging.group"),
    yaml("seed: 0\noptim.lr: 1\n", says="e.yaml: optim.lr"),
    yaml("seed: 0\nscott:\n  x: 1\n", says="scott"),
    yaml("seed: 0\noptim:\n  lr: ${nowhere}\n", says="optim.lr"),
    yaml("seed: 0\noptim:\n  lr: ${optim.lr}\n", says="refers to itself"),
    yaml("seed: 0\noptim: ${nowhere}\n", says="optim"),
    yaml('seed: 0\nstudent:\n  name: "a\\0b"\n', says="student.name"),
    yaml("seed: 0\nteacher:\n  extra: {1: 2}\n", says="teacher.extra"),
    yaml("seed: 0\nname: \x07\n", says="e.yaml"),
    yaml(b"seed: 0\nstudent:\n  name: \xe9t\xe9\n", says="UTF-8"),
    yaml("seed: 0\n".encode("utf-16"), says="UTF-16"),
    yaml(b"\x80\x04\x95pickle", says="UTF-8"),
    yaml(b"PK\x03\x04" + bytes(100), says="e.yaml"),
    yaml(b"\x00" * 100, says="e.yaml"),
    yaml(FOLDER, says="a folder"),
    yaml(FIFO, says="a pipe"),
    yaml(Link("e.yaml"), says="e.yaml"),
    yaml(Link("nowhere"), says="e.yaml"),
    yaml(Link("/dev/zero"), says="a device"),
]

# ---- Paths ----

LONG = "x" * 300


def at(folder: str, says: str, **others: Any) -> Case:
    return Case(words=["run", EXPERIMENT, "--run", folder], says=says, **others)


def words(*words: str, says: str, **others: Any) -> Case:
    return Case(words=list(words), says=says, **others)


PATHS = [
    at("", says="empty"),
    at("  ", says="empty"),
    at("a\0b", says="null"),
    at(LONG, says="too long"),
    at("/".join(["a"] * 3000), says="too long"),
    at("f", files={"f": "text"}, says="f"),
    at("f/r", files={"f": "text"}, says="f/r"),
    at("l", files={"l": Link("l")}, says="symbolic links"),
    at("l/r", files={"l": Link("l")}, says="symbolic links"),
    at("l", files={"l": Link("nowhere")}, says="a link to nothing"),
    at("p", files={"p": FIFO}, says="p"),
    at("/dev/null", says="/dev/null"),
    at("/proc/none/r", says="/proc/none", reads=True),
    at("r\udcff", says="UTF-8"),
    at("d", files={"d/other.txt": "text"}, says="not empty", reads=True),
    words("run", "", says="empty"),
    words("run", "nowhere.yaml", says="nowhere.yaml"),
    words("run", "arithmetik", says="arithmetic"),
    words("run", LONG, says="too long"),
    words("run", "a\0b.yaml", says="null"),
    words("run", "/dev/null", says="a device"),
    words("run", "f/e.yaml", files={"f": "text"}, says="f/e.yaml"),
    words("run", "e\udcff.yaml", says="UTF-8"),
    words("run", "d", files={"d": FOLDER}, says="a folder"),
    *(words(verb, "nowhere", says="nowhere") for verb in ("report", "export", "status")),
    *(words(verb, "f", files={"f": "text"}, says="f") for verb in ("report", "export", "status")),
    *(words(verb, "d", files={"d": FOLDER}, says="d") for verb in ("report", "export", "status")),
    *(words(verb, LONG, says="too long") for verb in ("report", "export", "status")),
    *(words(verb, "", says="empty") for verb in ("report", "export", "status")),
    *(words(verb, "l", files={"l": Link("l")}, says="l") for verb in ("report", "export", "status")),
]

# ---- Verbs and their options ----

VERBS = [
    words(says="VERB"),
    words("statsu", says="did you mean kpod status?"),
    words("rn", EXPERIMENT, says="did you mean kpod run?"),
    words("", says="VERB"),
    words("--no-such", says="kpod --help"),
    words("run", says="experiment"),
    words("run", EXPERIMENT, "--no-such", says="--no-such"),
    words("run", EXPERIMENT, "--rdo", says="did you mean --redo?"),
    words("submit", EXPERIMENT, "--time", "10", "--node=2", "--gpu", "1", "--sedes=1,2", says="did you mean --seeds?"),
    words("run", EXPERIMENT, "--run", says="--run"),
    words("run", EXPERIMENT, EXPERIMENT, says="arithmetic.yaml"),
    words("run", EXPERIMENT, "--redo=maybe", says="--redo"),
    words("train", EXPERIMENT, "--until", "train", says="--until"),
    run("--until", "nowhere", says="nowhere"),
    run("--until", "", says="stops at one of"),
    run("--until", "weights", "method=plain", says="weights"),
    words("weights", EXPERIMENT, "--run", "r", "method=plain", says="weights"),
    words("schedule", EXPERIMENT, "--run", "r", "curriculum=none", says="schedule"),
    words("doctor", "--memory", "0", says="--memory"),
    words("doctor", "--memory", "nan", says="--memory"),
    words("doctor", "--memory", "inf", says="--memory"),
    words("doctor", "--memory", "80GB", says="--memory"),
    words("doctor", "--memory", "1e400", says="--memory"),
    words("doctor", "nowhere.yaml", says="nowhere.yaml"),
    words("doctor", "optim.lrr=1", says="optim.lr"),
    words("export", says="run"),
    words("report", "a", "b", says="b"),
    words("status", "a", "b", says="b"),
    words("rationales", "report", EXPERIMENT, says="file"),
    words("rationales", "report", EXPERIMENT, "nowhere.jsonl", says="nowhere.jsonl"),
    words("rationales", "report", EXPERIMENT, "d", files={"d": FOLDER}, says="d"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", says="--out"),
    words("rationales", "filter", EXPERIMENT, "nowhere.jsonl", "--out", "o.jsonl", says="nowhere.jsonl"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "o.jsonl", "--near", "2", says="--near"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "o.jsonl", "--near", "nan", says="--near"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "o.jsonl", "--near", "0", says="--near"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "o.jsonl", "--most", "0", says="--most"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "o.jsonl", "--most", "1.5", says="--most"),
    words("rationales", "merge", "o.jsonl", says="parts"),
    words("rationales", "merge", "d", "p.jsonl", files={"d": FOLDER}, says="d: a folder"),
    words("rationales", "report", EXPERIMENT, "f.jsonl", "--out", "d", files={"d": FOLDER}, says="d: a folder"),
    words("rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "d", files={"d": FOLDER}, says="d: a folder"),
    words("rationales", EXPERIMENT, "--out", "/dev/full", says="/dev/full"),
    words("rationales", EXPERIMENT, "--out", "f/o.jsonl", files={"f": "text"}, says="f/o.jsonl"),
    words("rationales", "merge", "o.jsonl", "nowhere.jsonl", says="nowhere.jsonl"),
    words("rationales", EXPERIMENT, "--out", "o.jsonl", says="teacher"),
    words("rationales", EXPERIMENT, "teacher=openai:m", says="--out"),
    words("rationales", EXPERIMENT, "teacher=openai:m", "--out", "o.txt", says="o.txt"),
    words("rationales", EXPERIMENT, "teacher=openai:m", "--out", "", says="empty"),
    *(
        words("rationales", EXPERIMENT, "teacher=openai:m", "--out", "o.jsonl", "--shard", shard, says="--shard")
        for shard in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "", "²/3")
    ),
    words("dashboard", "--out", "", says="empty"),
    words("dashboard", "--out", "d", files={"d/precious.txt": "text"}, says="d: a folder"),
    words("dashboard", "--out", "f/x.json", files={"f": "text"}, says="f/"),
    *(words("dashboard", "--project", name, says="--project") for name in ("", "a/b/c", "/", "a\nb", "a%b")),
    words("prepare", EXPERIMENT, "student.name=a b", says="student.name", reads=True),
    words("prepare", EXPERIMENT, "student.name=no/such", says="student.name", reads=True),
    words("prepare", EXPERIMENT, "--run", "f", files={"f": "text"}, says="f"),
]

# ---- The environment ----


def told(says: str, **environment: str) -> Case:
    return run(says=says, environment=environment)


ENVIRONMENT = [
    told(WORLD_SIZE="abc", says="WORLD_SIZE=abc"),
    told(WORLD_SIZE="", says="WORLD_SIZE="),
    told(WORLD_SIZE="0", says="WORLD_SIZE=0"),
    told(WORLD_SIZE="-1", says="WORLD_SIZE=-1"),
    told(WORLD_SIZE="2.0", says="WORLD_SIZE=2.0"),
    told(WORLD_SIZE="٢", says="WORLD_SIZE"),
    told(WORLD_SIZE="9" * 5000, says="WORLD_SIZE"),
    told(WORLD_SIZE="2", says="RANK"),
    told(WORLD_SIZE="2", RANK="2", says="RANK=2"),
    told(WORLD_SIZE="2", RANK="x", says="RANK=x"),
    told(WORLD_SIZE="2", RANK="-1", says="RANK=-1"),
    told(WORLD_SIZE="2", RANK="0", LOCAL_RANK="a", says="LOCAL_RANK=a"),
    told(WORLD_SIZE="2", RANK="0", LOCAL_RANK="5", says="LOCAL_RANK=5"),
    told(WORLD_SIZE="1", RANK="0", MASTER_PORT="x", says="MASTER_PORT=x"),
    told(WORLD_SIZE="1", RANK="0", MASTER_PORT="70000", says="MASTER_PORT=70000"),
    told(WORLD_SIZE="1", RANK="0", MASTER_PORT="0", says="MASTER_PORT=0"),
    told(WORLD_SIZE="1", RANK="0", NODE_RANK="x", says="NODE_RANK=x"),
    told(SLURM_STEP_ID="0", SLURM_NTASKS="x", says="SLURM_NTASKS=x"),
    told(SLURM_STEP_ID="0", SLURM_NTASKS="", says="SLURM_NTASKS="),
    told(SLURM_STEP_ID="0", SLURM_NTASKS="1", SLURM_PROCID="x", says="SLURM_PROCID=x"),
    told(SLURM_STEP_ID="0", SLURM_NTASKS="1", SLURM_LOCALID="x", says="SLURM_LOCALID=x"),
    told(OMP_NUM_THREADS="abc", says="OMP_NUM_THREADS=abc"),
    told(OMP_NUM_THREADS="0", says="OMP_NUM_THREADS=0"),
    told(OMP_NUM_THREADS="-2", says="OMP_NUM_THREADS=-2"),
    told(OMP_NUM_THREADS="1.5", says="OMP_NUM_THREADS=1.5"),
    told(WANDB_MODE="nonsense", says="WANDB_MODE=nonsense"),
    told(HF_HUB_DOWNLOAD_TIMEOUT="abc", says="HF_HUB_DOWNLOAD_TIMEOUT=abc"),
    told(HF_HUB_ETAG_TIMEOUT="", says="HF_HUB_ETAG_TIMEOUT="),
    words("status", ".", environment={"WORLD_SIZE": "abc"}, says="WORLD_SIZE=abc"),
]

# ---- Site files and options of `kpod submit` ----


def submit(*more: str, says: str, **others: Any) -> Case:
    return words("submit", EXPERIMENT, "--run", "r", "--dry-run", *more, says=says, **others)


def site(text: Any, says: str) -> Case:
    return submit("--time", "10", "--site", "s.yaml", files={"s.yaml": text}, says=says)


SUBMIT = [
    submit(says="--time"),
    *(
        submit("--time", time, says="--time")
        for time in ("", "soon", "1", "-5", "1:2:3:4", "1-", "8h", "9" * 5000, "٣", "00:01:00", "nan")
    ),
    *(submit("--time", "10", "--nodes", nodes, says="--nodes") for nodes in ("0", "x", "1.5", "9" * 30)),
    *(submit("--time", "10", "--gpus", gpus, says="--gpus") for gpus in ("-1", "x", "99999")),
    submit("--time", "10", "--processes", "0", says="--processes"),
    submit("--time", "10", "--gpus", "1", "--processes", "1", says="--gpus"),
    submit("--time", "10", "--cpus", "0", says="--cpus"),
    submit("--time", "10", "--lead", "0", says="--lead"),
    submit("--time", "10", "--lead", "99999", says="--lead"),
    *(
        submit("--time", "10", "--seeds", seeds, says="--seeds")
        for seeds in ("", ",", "a", "1,1", "4-1", "0-99999999999", "1.5", "-1", "0-5000", "9" * 30)
    ),
    submit("--time", "10", "--seeds", "4294967296", says="seed"),
    submit("--time", "10", "--seeds", "0,1", "seed=3", says="seed"),
    submit("--time", "10", "--after", "x", says="--after"),
    submit("--time", "10", "--after", "1;rm", says="--after"),
    submit("--time", "10", "launch.devices=2", says="launch.devices"),
    submit("--time", "10", "optim.lrr=2", says="optim.lr"),
    words("submit", EXPERIMENT, "--run", "a\nb", "--dry-run", "--time", "10", says="--run"),
    words("submit", EXPERIMENT, "--run", "a\\b", "--dry-run", "--time", "10", says="--run"),
    submit("--time", "10", "--site", "nowhere.yaml", says="nowhere.yaml"),
    submit("--time", "10", "--site", "", says="empty"),
    site("partitions: gpu\n", says="s.yaml"),
    site("partition: [a]\n", says="s.yaml"),
    site("partition: true\n", says="s.yaml"),
    site("sbatch: --x\n", says="s.yaml"),
    site("sbatch: [constraint=a100]\n", says="s.yaml"),
    site('sbatch: ["--x\\n#SBATCH --y"]\n', says="s.yaml"),
    site('account: "a\\nb"\n', says="s.yaml"),
    site("setup: [1.5]\n", says="s.yaml"),
    site("- a\n", says="s.yaml"),
    site("a: : b\n", says="s.yaml"),
    site("account: ''\n", says="s.yaml"),
    site(b"account: \xff\n", says="UTF-8"),
    site(FOLDER, says="a folder"),
    site(Link("s.yaml"), says="s.yaml"),
]

# ---- Files of data ----

SOUND = [{"id": f"p{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)]
RATIONALES = [{"problem_id": f"p{i}", "sample": 0, "rationale": f"{i} + 1 = {i + 1}."} for i in range(4)]


def lines(rows: list[Any]) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def folder(**changed: Any) -> dict[str, Any]:
    """An own data set with rationales of a teacher; files by their names without .jsonl, None leaves one out."""
    rows: dict[str, Any] = {"train": SOUND, "validation": None, "test": None, "rationales": RATIONALES}
    rows["validation"] = [row | {"id": f"v{row['id']}"} for row in SOUND[:2]]
    rows["test"] = [row | {"id": f"t{row['id']}"} for row in SOUND[:2]]
    rows |= changed
    return {
        f"d/{name}.jsonl": lines(content) if isinstance(content, list) else content
        for name, content in rows.items()
        if content is not None
    }


OWN = [
    *("data.dataset=own", "data.dir=d", "rationales.source=recorded", "rationales.teacher=d/rationales.jsonl"),
    *(
        "data.num_train=null",
        "data.num_validation=null",
        "data.num_test=null",
        "method=plain",
        "logging.wandb=disabled",
    ),
]


def own(says: str, *more: str, **changed: Any) -> Case:
    return run(*OWN, "--until", "tokens", *more, says=says, files=folder(**changed), reads=True)


def problem(says: str, **fields: Any) -> Case:
    """The third problem of the train set has other fields."""
    rows = [*SOUND[:2], {name: value for name, value in (SOUND[2] | fields).items() if value is not ...}, SOUND[3]]
    return own(says, train=rows)


def sample(says: str, **fields: Any) -> Case:
    """The third rationale has other fields."""
    row = {name: value for name, value in (RATIONALES[2] | fields).items() if value is not ...}
    return own(says, rationales=[*RATIONALES[:2], row, RATIONALES[3]])


def raw(text: str) -> list[Any]:
    return [*SOUND[:2], text, SOUND[3]]


DATA = [
    own("train.jsonl", train=None),
    own("validation.jsonl", validation=""),
    own("test.jsonl", test="\n"),
    own("train", train=""),
    own("train", train="\n\n"),
    own("test", test=""),
    own("train.jsonl", train=FOLDER),
    own("train.jsonl", train=FIFO),
    own("train.jsonl", train=Link("train.jsonl")),
    own("train.jsonl", train=b"\xff\xfe{\x00"),
    own("train.jsonl:3", train=raw("{")),
    own("train.jsonl:3", train=raw("nonsense")),
    own("train.jsonl:3", train=raw("[1]")),
    own("train.jsonl:3", train=raw("null")),
    own("train.jsonl:3", train=raw("3")),
    own("train.jsonl:3", train=raw('"text"')),
    own("train.jsonl:3", train=raw('{"id": "p2", "question": "q", "answer": NaN}')),
    own("train.jsonl:3", train=raw('{"id": "p2", "question": "q", "answer": 1e999}')),
    own("train.jsonl:3", train=raw('{"id": "p2", "question": "q", "answer": ' + "9" * 5000 + "}")),
    own("train.jsonl:3", train=raw("[" * 5000)),
    own("train.jsonl:3", train=raw('{"id": "p2"} {"id": "p3"}')),
    own("train.jsonl:3", train=raw("{'id': 'p2'}")),
    own("train.jsonl", train=lines(SOUND[:2]).encode() + b'{"id": "\xe9"}\n'),
    own("train.jsonl", train=json.dumps(SOUND, indent=1)),
    own("train.jsonl", train="id,question,answer\n1,q,2\n"),
    own("train.jsonl", train=b"\x1f\x8b\x08\x00broken"),
    own("train.jsonl", train=bytes(1000)),
    problem("id", id=...),
    problem("question", question=...),
    problem("answer", answer=...),
    problem("id", id=""),
    problem("id", id=None),
    problem("id", id=["p"]),
    problem("id", id={"a": 1}),
    problem("id", id=True),
    problem("question", question=""),
    problem("question", question="  "),
    problem("question", question=3),
    problem("question", question=["q"]),
    problem("question", question={"q": 1}),
    problem("answer", answer=""),
    problem("answer", answer=None),
    problem("answer", answer=["3"]),
    problem("answer", answer={"a": 3}),
    problem("answer", answer="many"),
    problem("answer", answer=[]),
    problem("rationale", rationale=["1 + 2", "= 3"]),
    problem("rationale", rationale=5),
    problem("rationale", rationale={"text": "x"}),
    problem("choices", choices="A B"),
    problem("choices", choices=[{"label": "A"}]),
    problem("choices", choices=["A"]),
    problem("p0", id="p0"),
    own("tp0", train=[*SOUND, {"id": "tp0", "question": "q?", "answer": "1"}]),
    own("data.fields", "data.fields={question: body}"),
    own("data.fields", "data.fields={qeustion: question}"),
    own("answer", "data.kind=choice"),
    own("answer", "data.kind=yes_no"),
    own("nowhere", "data.dir=nowhere"),
    own("d/nothing.jsonl", "data.dir=d/nothing.jsonl"),
    own("data.dir", "data.dir=null"),
    own("nowhere", "rationales.teacher=nowhere.jsonl"),
    own("nowhere", "rationales.teacher=nowhere"),
    own(LONG[:50], f"rationales.teacher={LONG}.jsonl"),
    own(LONG[:50], f"data.dir={LONG}"),
    own("rationales", "rationales.source=human"),
    run("data.dataset=svamp", "data.dir=d", "rationales.source=human", says="d", reads=True),
    run("data.dataset=svamp", "data.dir=d", "rationales.source=human", files={"d": "text"}, says="d", reads=True),
]

TEACHER_FILES = [
    own("rationales.jsonl", rationales=None),
    own("rational", rationales=""),
    own("rationales.jsonl", rationales=FOLDER),
    own("rationales.jsonl", rationales=Link("rationales.jsonl")),
    own("rationales.jsonl:2", rationales=[RATIONALES[0], "{"]),
    own("rationales.jsonl:2", rationales=[RATIONALES[0], "[]"]),
    own("rationales.jsonl:2", rationales=[RATIONALES[0], "null"]),
    own("rationales.jsonl", rationales=b"\xff\xfe"),
    sample("problem_id", problem_id=...),
    sample("problem_id", problem_id=None),
    sample("problem_id", problem_id=["p1"]),
    sample("problem_id", problem_id=""),
    sample("rationale", rationale=...),
    sample("rationale", rationale=True),
    sample("rationale", rationale=3),
    sample("rationale", rationale=["a"]),
    sample("rationale", rationale={"a": 1}),
    sample("sample", sample=None),
    sample("sample", sample="x"),
    sample("sample", sample=-1),
    sample("sample", sample=1.5),
    sample("sample", sample=1e30),
    sample("sample", sample=True),
    sample("sample", sample=[0]),
    own("p", rationales=[row | {"problem_id": f"q{i}"} for i, row in enumerate(RATIONALES)]),
]

# ---- Students ----

TINY = ROOT / "kpod_lightning" / "assets" / "tiny-llama"


def student(says: str, name: str = "s", **changed: Any) -> Case:
    """The tiny student in a folder, with files of other contents; None leaves one out."""
    names = {path.name.replace(".", "_"): path.name for path in TINY.iterdir() if path.is_file()}
    files = {f"s/{path.name}": Link(str(path)) for path in TINY.iterdir() if path.is_file()}
    files |= {f"s/{names[key]}": content for key, content in changed.items()}
    files = {path: content for path, content in files.items() if content is not None}
    small = ("data.num_train=8", "data.num_validation=2", "data.num_test=2", "method=plain", "logging.wandb=disabled")
    more = (*small, f"student.name={name}", "--until", "tokens")
    return run(*more, says=says, files=files, reads=True)


STUDENTS = [
    student("nowhere", "nowhere/at-all"),
    student("student.name", "no such name"),
    student("student.name", "a/b/c"),
    student("student.name", "../x"),
    student("student.name", "https://huggingface.co/gpt2"),
    student("student.name", "tiny-lama"),
    student("student.name", "tiny-llama@v2"),
    student("student.name", "s/config.json"),
    student("student.name", LONG),
    student("student.name", "empty", config_json=FOLDER),
    student("s", config_json=None),
    student("s", config_json=""),
    student("s", config_json="{"),
    student("s", config_json="[]"),
    student("s", config_json="{}"),
    student("s", config_json='{"model_type": "nonsense"}'),
    student("s", config_json='{"model_type": 3}'),
    student("s", config_json='{"model_type": "bert"}'),
    student("s", config_json='{"model_type": "llama", "hidden_size": "x"}'),
    student("s", config_json=b"\xff\xfe"),
    student("s", tokenizer_json=None),
    student("s", tokenizer_json=""),
    student("s", tokenizer_json="{}"),
    student("s", tokenizer_json="[" * 5000),
    student("s", tokenizer_config_json="[]"),
    student("s", model_safetensors=None),
    student("s", model_safetensors=""),
    student("s", model_safetensors=b"\xff" * 100),
    student("s", model_safetensors=b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "),
    replace(student("smollm2-135m-q4", "smollm2-135m-q4"), environment={"KPOD_CACHE": "nothing-fetched"}),
]

# ---- Teachers ----


def order(*more: str, says: str, **others: Any) -> Case:
    small = ("data.num_train=4", "data.num_validation=2", "data.num_test=2")
    return words("rationales", EXPERIMENT, *small, "--out", "o.jsonl", *more, says=says, reads=True, **others)


ASKED = "teacher=openai:m"
NEAR = "teacher.base_url=http://127.0.0.1:9/v1"

TEACHERS = [
    order(ASKED, says="m"),
    order("teacher=openai:gpt-4.1-mini", says="budget"),
    order("teacher=openai:gpt-4.1-mini", "budget=1", says="OPENAI_API_KEY"),
    order(ASKED, NEAR, "budget=1", says="budget"),
    order(ASKED, NEAR, "teacher.prompt=nowhere", says="teacher.prompt"),
    order(ASKED, NEAR, "teacher.prompt=p.jinja", says="p.jinja"),
    *(
        order(ASKED, NEAR, "teacher.prompt=p.jinja", files={"p.jinja": text}, says="p.jinja")
        for text in ("", "{% block user %}", "{{", "{% block x %}{% endblock %}", b"\xff", FOLDER, Link("p.jinja"))
    ),
    *(
        order(
            ASKED,
            NEAR,
            "teacher.prompt=p.jinja",
            files={"p.jinja": f"{{% block user %}}{text}{{% endblock %}}"},
            says=t,
        )
        for text, t in (
            ("", "user"),
            ("{{ nothing }}", "nothing"),
            ("{{ 1 / 0 }}", "user"),
            ("{{ question() }}", "user"),
        )
    ),
    order(ASKED, NEAR, "teacher.prompt=few_shot", "teacher.examples=nowhere.jsonl", says="nowhere.jsonl"),
    *(
        order(
            ASKED, NEAR, "teacher.prompt=few_shot", "teacher.examples=x.jsonl", files={"x.jsonl": text}, says="x.jsonl"
        )
        for text in ("{", "[]\n", '{"question": "q"}\n', '{"question": 1, "rationale": "r", "answer": "a"}\n', FOLDER)
    ),
    order("teacher=recorded:nowhere.jsonl", says="nowhere.jsonl"),
    order("teacher=recorded:d", files={"d": FOLDER}, says="d"),
    *(
        order("teacher=recorded:x.jsonl", files={"x.jsonl": text}, says="x.jsonl")
        for text in ("{", "[]\n", "null\n", b"\xff\xfe", '{"rationale": "r"}\n')
    ),
    order("teacher=local:nowhere/at-all", says="nowhere"),
    *(
        order(ASKED, NEAR, files={"o.jsonl": text}, says="o.jsonl")
        for text in ("{\n{\n", "[]\n", "null\n", '{"problem_id": 1}\n', FOLDER, b"\xff\xfe\n", Link("o.jsonl"))
    ),
]

# ---- Run folders ----


def folder_of_run(verb: str, says: str, **changed: Any) -> Case:
    """A folder with a run's config.yaml and provenance.json."""
    made = '{"layout": 2, "artefacts": {"rationales.jsonl": "x"}}'  # a folder in which nothing was made is taken over
    files = {"config_yaml": "seed: 0\n", "provenance_json": made, "rationales.jsonl": ""} | changed
    names = {"config_yaml": "config.yaml", "provenance_json": "provenance.json", "report_html": "report.html"}
    files = {f"r/{names.get(name, name)}": content for name, content in files.items() if content is not None}
    more = ["data.num_train=4", "--until", "rationales"] if verb == "run" else []
    start = ["run", EXPERIMENT, "--run", "r", *more] if verb == "run" else [verb, "r"]
    return Case(words=start, files=files, says=says, reads=True)


BROKEN_SETTINGS = ("", "{", "[]", "seed: x\n", "seed: 0\nno: such\n", "seed: 0\noptim: 3\n", b"\xff\xfe", FOLDER)
BROKEN_PROVENANCE = ("", "{", "[]", "null", '{"layout": 1}', '{"layout": "x"}', '{"artefacts": 3}', b"\xff\xfe", FOLDER)

RUN_FOLDERS = [
    *(folder_of_run(verb, "r", config_yaml=text) for verb in ("report", "export") for text in BROKEN_SETTINGS),
    *(folder_of_run("run", "r", config_yaml=text) for text in BROKEN_SETTINGS),
    *(folder_of_run(verb, "r", provenance_json=text) for verb in ("report", "export") for text in BROKEN_PROVENANCE),
    *(folder_of_run("run", "r", provenance_json=text) for text in BROKEN_PROVENANCE),
    folder_of_run("report", "r"),
    folder_of_run("export", "r"),
    folder_of_run("run", "take another --run", config_yaml="seed: 7\n"),
]

AREAS = {
    "settings": SETTINGS,
    "overrides": OVERRIDES,
    "yaml": FILES,
    "paths": PATHS,
    "verbs": VERBS,
    "environment": ENVIRONMENT,
    "submit": SUBMIT,
    "data": DATA,
    "rationales": TEACHER_FILES,
    "students": STUDENTS,
    "teachers": TEACHERS,
    "run-folders": RUN_FOLDERS,
}


def named() -> dict[str, Case]:
    """Every case by its name: area and number."""
    return {f"{area}-{number}": case for area, cases in AREAS.items() for number, case in enumerate(cases)}
