"""The one console. The command line makes it quiet on every rank but the first; so does the pipeline."""

from rich.console import Console


class PlainConsole(Console):
    """A console on which names of folders and texts of others are neither markup nor names of smileys."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Let ``main`` say it in one line; rich calls this while it handles the error."""
        raise


console: Console = PlainConsole()


def say(line: str) -> None:
    """Print a line, which a narrow terminal breaks and a pipe does not."""
    console.print(line, soft_wrap=True)
