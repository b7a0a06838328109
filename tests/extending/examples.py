"""docs/extending.md: its text, its tables, and its examples as plugins."""

import contextlib
import importlib
import re
import sys

import pytest

from tests.conftest import REPO
from tvt_ray.runs.config import load_config

TEXT = (REPO / "docs" / "extending.md").read_text()
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = {code.split('"""')[1].removesuffix(".py"): code for code in BLOCKS}  # by the name in the first line
PLUGINS = [name for name in EXAMPLES if name != "my_command"]
KINDS = ("proxy", "score", "dataset", "teacher", "loss", "searcher", "callback", "space", "export", "command")
# Lines of the first table: what is added, the table that it is a row of, and the file that holds the table.
TABLES = re.findall(r"^\| .*?(\w+)\]?(?:\(#[\w-]+\))? \| `([A-Z]+)` \| `(\S+)` \|", PROSE, re.MULTILINE)


def named_in(path, name):
    """What a file of the package (or of the tests) calls `name`."""
    return getattr(importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")), name)


def contents():
    """Of every table, in order."""
    return {name: list(named_in(path, name)) for _, name, path in TABLES}


@contextlib.contextmanager
def loaded(folder):
    """The examples as modules in a folder that Python looks in; afterwards the tables are as before."""
    for name, code in EXAMPLES.items():
        (folder / f"{name}.py").write_text(code)
    tables = [table for _, name, path in TABLES if isinstance(table := named_in(path, name), dict)]
    before = [dict(table) for table in tables]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        try:
            yield load_config(None, [{"plugins": PLUGINS}])
        finally:
            for table, rows in zip(tables, before, strict=True):
                table.clear()
                table.update(rows)
            for name in EXAMPLES:
                sys.modules.pop(name, None)


def variant(plugins, **sections):
    return load_config(None, [plugins.model_dump(mode="json"), {"probe": {"num_images": 10}}, sections])
