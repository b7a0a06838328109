"""The two ways in which a run ends other than well."""


class UsageError(ValueError):
    """Something the user gave is wrong: one line that says what, and what is allowed. Exit code 2."""


class RunError(RuntimeError):
    """A run that started could not finish: one line that says where its results are and how to go on. Exit code 1."""
