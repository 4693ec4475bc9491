"""Endings: what ends the program early, each with an exit code of its own; without imports, as help needs them."""


class NoMatchError(Exception):
    """The selection matches no account."""


class OutputClosedError(Exception):
    """The reader of stdout has closed it, such as `head` after its last line."""


class TerminatedError(Exception):
    """SIGTERM arrived; what had finished was written."""
