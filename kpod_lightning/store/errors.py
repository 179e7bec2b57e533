"""The one error a user is meant to read."""


class InputError(Exception):
    """Input or settings that cannot be used.

    The message is one line: the place (file, line or key), what is wrong and the way out. The command line
    prints it and exits with code 2; nothing is written before it is raised.
    """
