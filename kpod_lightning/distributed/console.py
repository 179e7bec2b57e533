"""The one console. The command line makes it quiet on every rank but the first; so does the pipeline."""

from rich.console import Console

console = Console()
