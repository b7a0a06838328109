"""The two ways in which a run ends other than well."""

from collections.abc import Callable

LONGEST_START, LONGEST_END = 2500, 500  # characters of a message that are kept: files may hold what is repeated in it


class _LineError(Exception):
    """One line that is read: of a very long one, how it begins and how it ends."""

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= LONGEST_START + LONGEST_END:
            return text
        return f"{text[:LONGEST_START]} … {text[-LONGEST_END:]}"


class UsageError(_LineError, ValueError):
    """Something the user gave is wrong: one line that says what, and what is allowed. Exit code 2."""


class RunError(_LineError, RuntimeError):
    """A run that started could not finish: one line that says where its results are and how to go on. Exit code 1."""


# Called before a process is ended for a reason that an interrupt brings about too: ends it itself where there was one.
FIRST_TO_END: list[Callable[[], object]] = []
