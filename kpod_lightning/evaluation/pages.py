"""Pages from ``assets/templates``: one HTML file that needs no network, and Markdown."""

import re
from functools import cache
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from kpod_lightning.store.files import ASSETS


def plot(figure: go.Figure, name: str) -> str:
    """HTML of a figure, for a page that carries plotly's script.

    Args:
        name: id of its element, unique in the page.
    """
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


_MARKS = re.compile(r"[\\`*~<>|]|(?<!\w)_|_(?!\w)|(?<=\])[(\[]|&(?=#?\w+;)")
"""What Markdown would take for a mark: an underscore within a word is none, nor is a bracket that no other follows."""


def markdown(text: str) -> str:
    """A text of somebody else as one line of Markdown that shows it as it is, in a cell of a table too."""
    line = _MARKS.sub(r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"^(\d*)([-+#=.)])(?=[-#=]*(?:\s|$))", r"\1\\\2", line)  # a heading or a list


_LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


def latex(text: str) -> str:
    """A text as LaTeX shows it as it is."""
    return re.sub(r"[&%$#_{}~^\\−±<>]", lambda mark: _LATEX[mark[0]], text)


@cache
def templates() -> Environment:
    """The templates. HTML escapes every text, Markdown and LaTeX those with the filter ``md`` or ``tex``.

    An unknown name is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS / "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plot": plot, "percent": percent, "md": markdown, "tex": latex}
    environment.globals["plotly_script"] = get_plotlyjs
    return environment


def render(template: str, **fields: Any) -> str:
    """The text of a template of ``assets/templates``."""
    return templates().get_template(template).render(fields)
