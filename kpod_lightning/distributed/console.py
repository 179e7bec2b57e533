"""The one console. The command line makes it quiet on every rank but the first; so does the pipeline."""

from rich.console import Console

# Names of folders and texts of others are printed: none of them is markup or the name of a smiley.
console = Console(markup=False, emoji=False)
