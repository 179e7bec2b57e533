"""Recipe: what a report begins with, so that a reader knows which run this is and can make it again."""

import shlex
from dataclasses import dataclass

from kpod_lightning.config import that_matter, to_dict
from kpod_lightning.methods.base import method_of
from kpod_lightning.runs.folder import CONFIG, Run
from kpod_lightning.store.artefacts import setting
from kpod_lightning.store.described import as_written, described

IN_FACTS = ("method", "seed", "data.dataset", "student.name")
"""Settings that stand among the facts, whether or not they differ from their defaults."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a run, as a reader wants them."""

    facts: dict[str, str]
    """Student, method, data set, seed and versions."""
    changed: list[tuple[str, str, str]]
    """Name, value and default of every further setting that differs from its default and that the run reads."""
    again: str
    """Command that makes the run again; its paths start where those of the run's own command did."""


def recipe_of(run: Run) -> Recipe:
    config, rank = run.config, run.config.student.lora_rank
    adapted = "every parameter learns" if rank is None else f"LoRA of rank {rank} on every linear map of its blocks"
    written_by = config.rationales.teacher or config.rationales.source
    facts = {
        "student": f"{config.student.name} ({adapted})",
        "method": config.method,
        "data set": config.data.dataset if config.data.dir is None else f"{config.data.dataset} of {config.data.dir}",
        "rationales": written_by,
        "seed": str(config.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in run.provenance["versions"].items()),
    }
    method, matter = method_of(config), that_matter(to_dict(config))
    changed = [
        (row.key, as_written(value), as_written(row.default))
        for row in described(type(config))
        if row.key.partition(".")[0] in matter and row.key not in IN_FACTS and method.uses(row.key)
        for value in [setting(config, row.key)]
        if value != row.default
    ]
    # Relative paths of the settings start there too, so that the command must not be of the folder itself.
    file, folder = shlex.quote(str(run.folder / CONFIG)), shlex.quote(f"{run.folder}-again")
    return Recipe(facts=facts, changed=changed, again=f"kpod run {file} --run {folder}")
