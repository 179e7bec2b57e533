"""The one error a user is meant to read."""


class InputError(Exception):
    """Input or settings that cannot be used.

    The message is one line: the place (file, line or key), what is wrong and the way out. The command line
    prints it and exits with code 2; nothing is written before it is raised.
    """


LONGEST = 390
"""Most characters of a message: a few lines of a terminal."""


def one_line(message: object) -> str:
    """A message as the command line prints it: one line that begins with ``kpod:``, every character printable.

    A message may quote anything, also a file name with line ends; where it is very long its middle is left out.
    """
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(message).strip())
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 150]} ... {text[-145:]}"
    return f"kpod: {text}\n"
