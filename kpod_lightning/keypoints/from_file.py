"""FromFile: weights of the user's own, read from a file of JSON Lines by the characters of the rationales."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.keypoints.base import OF_TABLES, Weighting
from kpod_lightning.keypoints.learned import WEIGHTS
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.bounds import at_least, check, one_of
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.keypoints.table import WeightTable
    from kpod_lightning.store.json_lines import JsonLines
    from kpod_lightning.store.ragged import Ragged

FORMAT = "weights-1"
"""Name of how a file is read: another one would make other weights of the same file."""


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """The block ``file:``."""

    path: str | None = None
    """JSON Lines of weights by the characters of rationales, docs/weights-file.md; `kpod weights export` writes one."""
    default: float = field(default=1.0, metadata=at_least(0, most=1e6))
    """Weight of the characters of a rationale that no row of the file is for."""
    others: str = field(default="stop", metadata=one_of("stop", "skip"))
    """Rows for rationales that the run does not train on: stop | skip."""

    def __post_init__(self) -> None:
        check(self, "file")


class FromFile(Weighting):
    """The file is read once, into the run's table of weights; a changed file is another table, and another student."""

    Settings = FileSettings
    weighs_answers = True

    def check(self) -> None:
        if self.settings.path is None:
            raise InputError("weights.kind=file needs file.path=FILE, see docs/weights-file.md")

    reads = OF_TABLES

    @cached_property
    def rows(self) -> "JsonLines":
        from kpod_lightning.store.json_lines import JsonLines

        return JsonLines(Path(self.settings.path), digest=True, named_by="file.path")

    def arrows(self) -> list[Arrow]:
        if not self.config.weights.in_loss:
            return []
        return [
            Arrow(
                verb="weights",
                artefact=WEIGHTS,
                settings=("file.default", "file.others"),
                needs=("rationales.jsonl",),
                also=(FORMAT, self.rows.sha256),
                make=self.made,
                save=lambda path, made: made().save(path),
                show=lambda context: context.say(sentence(self.loaded(context.folder))),
                shared=True,
            )
        ]

    def made(self, context: Any) -> "Callable[[], WeightTable]":
        """Reads the file when it is called, which the first rank alone does."""
        from kpod_lightning.keypoints.weights_file import WeightRows

        def read() -> "WeightTable":
            rows = WeightRows(self.rows, context.rationales.rows, self.settings.others)
            about = {"format": FORMAT, "num_rows": len(self.rows), "num_skipped": rows.num_skipped}
            return rows.table(self.settings.default, about)

        return read

    def loaded(self, folder: Path) -> "WeightTable":
        from kpod_lightning.keypoints.table import WeightTable

        return WeightTable.load(folder / WEIGHTS)

    def table(self, context: Any) -> "Ragged":
        import numpy as np

        from kpod_lightning.store.ragged import Ragged

        table, examples = self.loaded(context.folder), context.examples

        def rows() -> Any:
            for example, text, source in zip(examples, context.texts, examples.sources.tolist(), strict=True):
                row = table.of(example, text, near=source)
                answer = table.answers[table.keys.find(example.key, source)]
                yield np.append(row, np.full(len(example.target_ids) - len(row), answer, np.float64))

        return Ragged.stored(rows(), np.float64)

    def describe(self, folder: Path) -> "Sequence[Section]":
        if not (folder / WEIGHTS).is_file():
            return []
        from kpod_lightning.evaluation.sections import Section

        return [Section("Token weights of a file", (sentence(self.loaded(folder)),))]


def sentence(table: "WeightTable") -> str:
    """What was read."""
    import numpy as np

    values, about = np.asarray(table.values.values[:]), table.about
    skipped = f", {about['num_skipped']} of them for other rationales and skipped" if about["num_skipped"] else ""
    return (
        f"Token weights of {len(table.keys)} rationales from a file with {about['num_rows']} rows{skipped}: "
        f"{values.min():.3g} to {values.max():.3g} on the rationales, {np.min(table.answers):.3g} to "
        f"{np.max(table.answers):.3g} on the answers."
    )
