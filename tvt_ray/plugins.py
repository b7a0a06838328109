"""Modules of the user's own that add rows to the tables (docs/extending.md)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from tvt_ray.errors import UsageError


def load_plugins(names: Sequence[str]) -> None:
    """Imports each, which is when it adds its rows; every process of a run does so.

    Raises UsageError for one that fails.
    Importing runs the module's code: name only what you trust.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever its code raises
            raise UsageError(
                f"plugin {name!r} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
