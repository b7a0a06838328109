"""The run folder: what is in it, whether it is free, and what goes on with it."""

import dataclasses
import json
import shlex
import sys

import pytest

from tests.conftest import make_row
from tests.runs.conftest import SPACE
from tvt_ray import __version__
from tvt_ray.cli.main import build_parser
from tvt_ray.errors import UsageError
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import NUM_LISTED, Choice, RunFolder
from tvt_ray.scoring.ranking import make_ranking
from tvt_ray.scoring.rows import ROWS
from tvt_ray.storage.locations import write_atomically
from tvt_ray.storage.records import Records, RecordWriter


def assert_one_line(error):
    assert "\n" not in str(error.value)


def test_rows_and_config_live_on_a_bucket_too(remote):
    folder, config = RunFolder(remote), RunConfig()
    folder.check(config, resume=False)
    with folder.lock(), RecordWriter(folder.rows()) as writer:
        folder.claim(config)
        for number in range(20):
            writer.put([make_row(number)])
    assert Records(remote / "rows", ROWS).read() == [make_row(number) for number in range(20)]
    folder.rows().compact()
    assert len((remote / "rows").glob("*.parquet")) == 1
    assert folder.config() == config
    with pytest.raises(UsageError, match="already holds a run"):
        folder.check(config, resume=False)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/run cannot be made: Not a directory"):
        RunFolder(tmp_path / "file" / "run").make()


def test_a_folder_that_cannot_be_written_to_is_one_line(location, tmp_path):
    """The name that is tried is taken, as by a folder that this user may not write to."""
    (tmp_path / "bucket" / "run" / ".writable").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"run cannot be (made|written)") as error:
        RunFolder(location).make()
    assert_one_line(error)


def test_a_bucket_in_which_no_folder_can_be_made_is_one_line(remote, tmp_path):
    (tmp_path / "bucket").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match=r"s3://bucket/run cannot be (made|written)"):
        RunFolder(remote).make()


def test_making_a_folder_leaves_it_empty(location):
    RunFolder(location).make()
    RunFolder(location).make()
    assert location.exists()
    assert list(location.iterdir()) == []


def test_everything_that_was_written_is_read_back(run_folder, run_config, rows):
    assert run_folder.config() == run_config
    assert run_folder.rows().read() == rows
    assert run_folder.calibration().sample == tuple(row.values for row in rows[:8])
    assert not run_folder.measurements().exist()
    trained = Measurement(rows[0].arch_id, 3, 0, 61.5, 2.0, "abc")
    run_folder.measurements().append([trained])
    assert RunFolder(run_folder.path).measurements().read() == [trained]
    assert sorted(path.name for path in run_folder.path.iterdir()) == [
        ".signature",
        "calibration.json",
        "config.yaml",
        "measurements",
        "rows",
    ]


def test_the_config_says_what_it_is_which_version_wrote_it_and_how_to_go_on(run_folder):
    header = [line for line in run_folder.config_file.read_text().splitlines() if line.startswith("#")]
    assert f"as tvt_ray {__version__} resolved" in header[0]
    command = header[1].partition("tvt ")[2].replace("THIS_FOLDER", str(run_folder.path))
    assert build_parser().parse_args(shlex.split(command)).resume


def test_a_folder_without_a_config_holds_no_run(location):
    with pytest.raises(UsageError, match=r"run holds no run: there is no config\.yaml in it"):
        RunFolder(location).config()


@pytest.mark.parametrize("change", [{"format": None}, {"format": 1}, {"format": 3}, {"format": "2"}], ids=str)
def test_a_run_of_another_version_is_refused_in_one_line(change, run_folder, run_config):
    """Before there was a format, config.yaml did not name one."""
    values = {**run_config.model_dump(mode="json"), **change}
    text = json.dumps({key: value for key, value in values.items() if value is not None})
    write_atomically(run_folder.config_file, text.encode())
    with pytest.raises(UsageError, match=r"by another version of tvt_ray \(format .+, this one reads 2\)") as error:
        run_folder.config()
    assert_one_line(error)
    with pytest.raises(UsageError, match="search anew into another --run-dir"):
        run_folder.check(run_config, resume=True)


def test_a_run_from_before_formats_is_called_format_one(location):
    write_atomically(location / "config.yaml", b"seed: 0\nsearch: {num_workers: 2}\n")
    with pytest.raises(UsageError, match=r"\(format 1, this one reads 2\)"):
        RunFolder(location).config()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "config.yaml is not YAML: "),
        (b"format: 2\nseed: \xe9", "config.yaml is not YAML: "),
        (b"a: [", "config.yaml is not YAML: "),
        (b"\x00", "config.yaml is not YAML: "),
        (b"", "config.yaml does not hold a mapping"),
        (b"- 1", "config.yaml does not hold a mapping"),
        (b"format: 2\nsed: 1", "did you mean 'seed'"),
    ],
    ids=repr,
)
def test_a_config_that_is_damaged_is_one_line(content, message, location):
    write_atomically(location / "config.yaml", content)
    with pytest.raises(UsageError, match=message) as error:
        RunFolder(location).config()
    assert_one_line(error)


def test_a_missing_calibration_is_one_line(run_folder):
    run_folder.calibration_file.unlink()
    with pytest.raises(UsageError, match=r"calibration\.json is missing") as error:
        run_folder.calibration()
    assert_one_line(error)


def test_a_folder_is_free_until_it_holds_a_run(run_folder, run_config, tmp_path):
    RunFolder(tmp_path / "free").check(run_config, resume=False)
    with pytest.raises(UsageError, match="already holds a run; --resume goes on with it"):
        run_folder.check(run_config, resume=False)
    run_folder.config_file.unlink()
    with pytest.raises(UsageError, match="already holds a run"):  # its rows are not to be mixed with others
        run_folder.check(run_config, resume=False)


def test_the_same_run_can_be_resumed_and_another_cannot(run_folder, run_config, tmp_path):
    run_folder.check(run_config, resume=True)
    more = load_config(None, [run_config.model_dump(mode="json"), {"search": {"num_samples": 7, "searcher": "tpe"}}])
    run_folder.check(more, resume=True)
    other = run_config.model_copy(update={"seed": 5})
    with pytest.raises(UsageError, match=r"holds another run: seed is 5 here and 0 there; choose another") as error:
        run_folder.check(other, resume=True)
    assert_one_line(error)
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder(tmp_path / "free").check(run_config, resume=True)


def test_the_top_list_holds_the_best_and_the_front_one_of_each_shape(run_folder, rows):
    ranking = make_ranking(rows, "capacity", run_folder.calibration())
    run_folder.write_top(ranking, SPACE)
    top = json.loads((run_folder.path / "top.json").read_text())
    assert (top["score"], top["num_shapes"]) == ("capacity", 12)
    assert [each["arch_id"] for each in top["best"]] == [each.row.arch_id for each in ranking.top(NUM_LISTED)]
    assert [each["arch_id"] for each in top["pareto"]] == [each.row.arch_id for each in ranking.front()]
    assert top["best"][0] == Choice.of(ranking.top(1)[0], SPACE).to_json()
    assert set(top["best"][0]) == {"arch_id", "score", "params", "flops", "arch"}


def test_an_id_that_is_not_its_architectures_is_not_listed(run_folder, rows):
    """Rows may be a stranger's, and an id becomes a path."""
    tampered = [dataclasses.replace(rows[0], arch_id="../../.."), *rows[1:]]
    ranking = make_ranking(tampered, "params", run_folder.calibration())
    entry = next(each for each in ranking.scored if each.row.arch_id == "../../..")
    with pytest.raises(UsageError, match="the run folder was tampered with"):
        Choice.of(entry, SPACE)
    with pytest.raises(UsageError, match="the run folder was tampered with"):
        run_folder.write_top(make_ranking(tampered[:1], "params", run_folder.calibration()), SPACE)
    assert not (run_folder.path / "top.json").exists()


def test_a_run_folder_imports_no_plugin_by_itself(tmp_path, monkeypatch):
    """It may be a stranger's, and a plugin is code: whoever trusts it names it again, or imports it."""
    (tmp_path / "tvt_strangers_plugin.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = RunFolder(tmp_path / "run")
    folder.make()
    write_atomically(folder.config_file, b"format: 2\nplugins: [tvt_strangers_plugin]\n")
    with pytest.raises(UsageError, match=r"give --set plugins=\[tvt_strangers_plugin\] \(in Python: import tvt_str"):
        folder.config()
    monkeypatch.setitem(sys.modules, "tvt_strangers_plugin", sys)  # somebody has imported it
    assert folder.config().plugins == ("tvt_strangers_plugin",)


def test_a_folder_with_a_way_out_of_it_is_no_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.claim(RunConfig())
    assert folder.config() == RunConfig()
    (tmp_path / "run" / "distill").symlink_to(tmp_path)
    for step in (folder.config, folder.make):
        with pytest.raises(UsageError, match="holds distill, a link to"):
            step()


def test_a_plugin_s_name_is_offered_for_pasting_only_where_it_is_one(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    text = RunConfig().to_yaml()
    assert "\nplugins: []\n" in text
    folder.config_file.write_text(text.replace("plugins: []", 'plugins: ["x]; touch /tmp/owned #"]'))
    with pytest.raises(UsageError, match=r"plugins that are no Python modules: x\]; touch") as refused:
        folder.config()
    assert "--set" not in str(refused.value)


@pytest.mark.parametrize("plugins", ["[[]]", "[{}]", "[[[1]], {a: b}]"])
def test_plugins_that_are_no_names_are_refused_in_a_line(plugins, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.config_file.write_text(RunConfig().to_yaml().replace("plugins: []", f"plugins: {plugins}"))
    with pytest.raises(UsageError, match="plugins that are no Python modules") as refused:
        folder.config()
    assert "\n" not in str(refused.value)
