"""Modules of the user's that a config names: what they add, and what is said where they cannot be imported."""

import sys

import pytest
import yaml

from tvt_ray.errors import UsageError
from tvt_ray.runs.config import load_config, validate
from tvt_ray.searchers import SEARCHERS


def test_a_plugin_adds_choices_before_the_config_is_checked(tmp_path, monkeypatch):
    (tmp_path / "tvt_test_plugin.py").write_text(
        "from tvt_ray.searchers import SEARCHERS\nSEARCHERS['mine'] = SEARCHERS['random']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tvt_test_plugin", raising=False)
    monkeypatch.setitem(SEARCHERS, "mine", None)  # so that it is gone after the test
    monkeypatch.delitem(SEARCHERS, "mine")
    asked = {"search": {"searcher": "mine"}}
    with pytest.raises(UsageError, match="unknown searcher 'mine'"):
        load_config(None, [asked])
    config = load_config(None, [asked, {"plugins": ["tvt_test_plugin"]}])
    assert (config.plugins, config.search.searcher) == (("tvt_test_plugin",), "mine")
    assert validate(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tvt_no_such_module", None, "ModuleNotFoundError: No module named 'tvt_no_such_module'"),
        ("tvt_ray.no_such_module", None, "ModuleNotFoundError: No module named 'tvt_ray.no_such_module'"),
        ("tvt_bad_plugin", "1 / 0", "ZeroDivisionError: division by zero"),
        ("tvt_worse_plugin", "raise ValueError('first\\nsecond')", "ValueError: first"),
        ("tvt_no_plugin", "def (", "SyntaxError: invalid syntax"),
        ("..above", None, "TypeError: "),
        ("", None, "ValueError: "),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(name, content, message, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError) as error:
        load_config(None, [{"plugins": [name]}])
    assert str(error.value).startswith(f"plugin {name!r} cannot be imported: {message}")
    assert "\n" not in str(error.value)
