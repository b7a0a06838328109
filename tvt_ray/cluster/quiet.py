"""Settings that Ray reads from the environment, and its loggers, changed for as long as a block runs."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def quiet(loggers: Mapping[str, int], environment: Mapping[str, str]) -> Iterator[None]:
    """Sets levels and variables; afterwards all is as before. A variable that the user has set is left alone."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    added = [name for name in environment if name not in os.environ]
    for name, level in loggers.items():
        logging.getLogger(name).setLevel(level)
    os.environ.update({name: environment[name] for name in added})
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in added:
            os.environ.pop(name, None)
