"""The one console of a run. It is quiet on all ranks but the first, as soon as the ranks are joined."""

from rich.console import Console

console = Console()
