"""`kpod dashboard`: the W&B workspace of a project, with what is worth seeing of its runs, in sections."""

import argparse
import json
from pathlib import Path
from typing import Any

from kpod_lightning.commands.arguments import Verbs, a_file
from kpod_lightning.config import is_project
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.products import product

STEP = "trainer/global_step"

PICTURES = ("rationales", "sufficiency", "kinds", "history", "difficulty", "asked", "input-steps")
"""Names under ``pictures/`` in W&B, those of the report's figures."""


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("dashboard", help="make the W&B workspace of a project, or its JSON without a login")
    command.add_argument(
        "--project", type=a_project, default="kpod_lightning", help="[ENTITY/]PROJECT (default: kpod_lightning)"
    )
    command.add_argument("--out", type=a_file, metavar="FILE", help="write it as JSON too (alone: dashboard.json)")
    command.set_defaults(main=main)


def a_project(word: str) -> str:
    """``PROJECT`` or ``ENTITY/PROJECT``.

    Raises:
        InputError: another form, which W&B does not take.
    """
    entity, slash, project = word.rpartition("/")
    if not is_project(project) or (slash and not is_project(entity)):
        raise InputError(f"--project {word!r} is no [ENTITY/]PROJECT of W&B, such as kpod_lightning")
    return word


def main(arguments: argparse.Namespace) -> int:
    print(dashboard(arguments.project, arguments.out))
    return 0


def workspace(entity: str, project: str) -> Any:
    """The workspace, not saved yet.

    Raises:
        InputError: the extra ``dashboard`` is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise InputError("kpod dashboard needs wandb-workspaces: pip install 'kpod_lightning[dashboard]'") from error
    return ws.Workspace(
        entity=entity,
        project=project,
        name="KPOD",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in panels_by_section(wr).items()],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )


def panels_by_section(wr: Any) -> dict[str, list[Any]]:
    """Panels of each section, which has a name.

    Args:
        wr: the module ``wandb_workspaces.reports.v2``.
    """

    def lines(title: str, unit: str, *names: str) -> Any:
        return wr.LinePlot(title=title, x=STEP, y=list(names), title_x="optimiser step", title_y=unit)

    def bars(title: str, *names: str) -> Any:
        return wr.BarPlot(title=title, metrics=list(names), title_x="share right")

    accuracy = [
        lines("validation accuracy", "share right", "validation/accuracy"),
        lines("validation outputs without an answer", "share", "validation/unparsable"),
        bars("test accuracy, before and after distillation", "test/accuracy_before", "test/accuracy"),
        bars("test accuracy after distillation, 95 % interval", "test/accuracy_low", "test/accuracy_high"),
        wr.BarPlot(title="test problems gained and lost", metrics=["test/gained", "test/lost"], title_x="problems"),
        wr.WeavePanelSummaryTable(table_name="tables/outcomes"),
        wr.WeavePanelSummaryTable(table_name="tables/test"),
    ]
    stage = [
        lines("stage", "stage t", "train/stage"),
        lines("input steps, mean over rationales", "steps", "train/mean_input_steps"),
        lines("steps asked, all rationales (forward)", "steps", "schedule/asked_steps"),
        lines("share of a rationale's tokens that is input (in_sample)", "", "schedule/shown_share"),
        lines(
            "share of the steps that is input, and mean interval (prefix_adaptive)",
            "",
            *(f"prefix_adaptive/{name}" for name in ("mean_shown", "mean_low", "mean_high")),
        ),
        lines("rationales finished from their shown steps (prefix_adaptive)", "share right", "prefix_adaptive/success"),
        lines("share of the examples that is taken (adaptive)", "share", "adaptive/share_taken"),
        lines(
            "difficulty of all examples and of those taken (adaptive)",
            "nats a token",
            *(f"adaptive/{name}" for name in ("mean_difficulty", "mean_difficulty_taken")),
        ),
        lines("confidence in a target (self_paced)", "", "self_paced/mean_confidence"),
    ]
    budget = [
        lines("difficulty asked and budget", "nats", "schedule/asked_nats", "schedule/budget_nats"),
        wr.WeavePanelSummaryTable(table_name="tables/schedule"),
    ]
    speed = [
        lines("target tokens a second", "tokens a second", "train/tokens_per_second"),
        lines("target tokens since the first step", "tokens", "train/tokens_seen"),
    ]
    pictures = [wr.MediaBrowser(title=name, media_keys=[f"pictures/{name}"]) for name in PICTURES]
    return {
        "Accuracy": accuracy,
        "Loss": [
            lines("loss of a target token", "nats", "train/nats_per_token"),
            lines("weighted loss of a target token, Eq. (15)", "nats", "train/weighted_nats_per_token"),
            lines("weights: mean, and effective share", "", "train/mean_weight", "train/effective_share"),
            lines("divergence of the answers of a pair (mcc_kd)", "nats", "train/kl"),
            lines("rationales whose partner has another answer (mcc_kd)", "share", "train/kl_skipped"),
        ],
        "Stage and input steps": stage,
        "Asked against budget": budget,
        "Throughput": speed,
        "Pictures": pictures,
    }


def as_json(made: Any) -> str:
    """The JSON that would be saved, by private names of the package, which has no public ones for it.

    Raises:
        InputError: the installed version does not have these names.
    """
    try:
        spec = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    except AttributeError as error:
        raise InputError(
            f"this version of wandb-workspaces cannot build a workspace without a login: {error}"
        ) from None
    return json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


def dashboard(project: str, out: Path | None = None) -> str:
    """Save the workspace of ``project`` or ``entity/project`` at W&B; without a login, as JSON in ``out``.

    Returns:
        A sentence on what was done.

    Raises:
        InputError: see ``workspace`` and ``as_json``.
    """
    from kpod_lightning.runs.tracking import has_key  # imports lightning

    entity, _, name = project.rpartition("/")
    online = has_key()
    if online and not entity:
        import wandb

        entity = wandb.Api().default_entity or ""
    made = workspace(entity or "entity", name)
    if out is None and not online:
        out = Path("dashboard.json")
    if out is not None:
        with product(out, "dashboard") as aside:
            aside.write_text(as_json(made), encoding="utf-8")
    if not online:
        return f"{out}: the workspace, not saved at W&B, where there is no login; `wandb login` and repeat to save it"
    made.save()
    return f"{made.url}" + (f", and as JSON in {out}" if out else "")
