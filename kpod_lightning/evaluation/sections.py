"""Section: what a method says of its own part in a report. The report renders sections and knows no method."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Args:
        name: key in W&B, ``tables/<name>``.
        columns: title of each column, unit included, and the format of its cells, e.g. ``{"budget, nats": ".1f"}``;
            an empty format writes a cell as ``str`` does.
        rows: one cell for each column; None is an empty cell.
    """

    name: str
    columns: Mapping[str, str]
    rows: tuple[tuple[str | float | None, ...], ...]

    def texts(self) -> list[list[str]]:
        """The cells as they are shown, row by row."""
        return [
            ["" if cell is None else format(cell, spec) for cell, spec in zip(row, self.columns.values(), strict=True)]
            for row in self.rows
        ]


@dataclass(frozen=True)
class Section:
    """One part of a report, shown in the order of the fields.

    Args:
        title: heading, plain text.
        sentences: paragraphs, plain text.
        html: further HTML by name, in W&B ``pictures/<name>``. It is shown as it stands: whoever makes it escapes it.
        table: the numbers behind the sentences.
        figures: by name, unique in a report; in W&B ``pictures/<name>``.
    """

    title: str
    sentences: tuple[str, ...] = ()
    html: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None
    figures: Mapping[str, "go.Figure"] = field(default_factory=dict)
