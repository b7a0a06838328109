"""docs/extending.md: the places that it names are there, and every example adds its row."""

import re
import shlex

import pytest
import yaml

from tests.conftest import REPO
from tests.extending.examples import EXAMPLES, KINDS, PLUGINS, PROSE, TABLES, TEXT, contents, loaded, named_in, variant
from tvt_ray.cli.main import build_parser
from tvt_ray.cli.options import overrides
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.scoring.rows import SCHEMA


def test_every_kind_has_a_section_with_an_example_and_a_table():
    titles = re.findall(r"^## An? (\w+)$", PROSE, re.MULTILINE)
    assert tuple(titles) == KINDS
    assert [kind for kind, _, _ in TABLES] == list(KINDS)
    assert EXAMPLES.keys() == {f"my_{kind}" for kind in KINDS}


def test_every_table_that_the_package_speaks_of_is_on_the_page():
    code = "\n".join(path.read_text() for path in (REPO / "tvt_ray").rglob("*.py"))
    assert {name for _, name, _ in TABLES} >= set(re.findall(r"a row in `([A-Z]+)`", code))
    for _, name, path in TABLES:
        assert len(named_in(path, name)) > 0


def test_every_file_and_folder_that_the_page_names_is_there():
    spans = [span for span in re.findall(r"`([^`\n]+)`", PROSE) if re.fullmatch(r"[\w./-]+(\.py|\.md|\.yaml|/)", span)]
    assert len(spans) > 30
    missing = [span for span in spans if not (REPO / span.partition("NAME")[0]).exists()]
    assert missing == []


def test_everything_that_the_page_says_is_in_a_file_is_there():
    places = re.findall(r"`(\w+)` in `([\w/]+\.py)`", PROSE)
    assert len(places) > len(TABLES)
    for name, path in places:
        named_in(path, name)


def test_the_page_lists_the_columns_that_no_proxy_may_be_called():
    (listed,) = re.findall(r"so it is none of (.*?)\.\n", PROSE, re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == SCHEMA.names


def test_commands_of_the_page_are_understood(plugins):
    commands = re.findall(r"^python -m tvt_ray (.*)$", TEXT, re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"search", "rank", "distill"}
    for command in commands:
        config = load_config(None, [overrides(build_parser().parse_args(shlex.split(command)))])
        assert set(config.plugins) <= set(PLUGINS)


def test_every_example_adds_its_row_and_nothing_is_left_of_it_afterwards(tmp_path):
    before = contents()
    with loaded(tmp_path):
        added = {name: set(rows) - set(before[name]) for name, rows in contents().items()}
    assert added == {
        "PROXIES": {"spectral_sum"},
        "SCORES": {"wide_and_shallow"},
        "DATASETS": {"stripes"},
        "TEACHERS": {"three_stages"},
        "LOSSES": {"relations"},
        "SEARCHERS": {"climb"},
        "CALLBACKS": {"records"},
        "SPACES": {"plain"},
        "EXPORTS": {"summary"},
        "COMMANDS": set(),  # added in the package alone
    }
    assert contents() == before


def test_a_config_that_names_no_plugin_knows_none_of_their_rows():
    with pytest.raises(UsageError, match="unknown score 'spectral_sum'; choices: capacity, tvt, params"):
        load_config(None, [{"score": {"name": "spectral_sum"}}])
    with pytest.raises(UsageError, match="unknown search space 'plain'; choices: autoformer, pit, vit"):
        load_config(None, [{"space": {"name": "plain"}}])


def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_plugin.py").write_text("raise OSError('no such\\nluck')")
    with pytest.raises(UsageError, match="plugin 'broken_plugin' cannot be imported: OSError: no such"):
        load_config(None, [{"plugins": ["broken_plugin"]}])
    with pytest.raises(UsageError, match="plugin 'not_there' cannot be imported: ModuleNotFoundError"):
        load_config(None, [{"plugins": ["not_there"]}])


def test_a_stored_config_names_the_plugins_and_loads_them_again(plugins):
    config = variant(plugins, space={"name": "plain", "depth": [2]}, score={"name": "spectral_sum"})
    again = load_config(None, [yaml.safe_load(config.to_yaml())])
    assert again == config
    assert again.plugins == tuple(PLUGINS)
    assert type(again.space).__name__ == "PlainSpace"


def test_the_default_config_names_no_plugin():
    assert RunConfig().plugins == ()
