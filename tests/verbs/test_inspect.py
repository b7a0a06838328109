"""What is said of a folder that somebody gave, and that nothing of it is acted on."""

import json
import os

import pytest

from tests.conftest import SMALL_SPACES, call
from tests.exports.conftest import write_folder
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.verbs.inspect import MOST_LISTED, inspect


@pytest.fixture
def run(tmp_path, monkeypatch):
    """This user's, with a student."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "ours"))
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.claim(RunConfig().with_(data={"name": "imagefolder:/home/me/photos"}, teacher={"weights": "/home/me/t.pth"}))
    write_folder(tmp_path / "run" / "distill" / "small", SMALL_SPACES["autoformer"])
    return folder


def contents(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_of_ones_own_has_nothing_odd(run):
    before = contents(run.path)
    found = inspect(run.path)
    assert (found.kind, found.made_by, found.odd) == ("a run", "this user, by its signature", ())
    assert found.outside == {"data.name": "imagefolder:/home/me/photos", "teacher.weights": "/home/me/t.pth"}
    (student,) = found.students
    assert student.startswith("distill/small: autoformer-")
    assert student.endswith("3 classes")
    assert found.bytes == sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    assert contents(run.path) == before
    lone = inspect(run.path / "distill" / "small")
    assert (lone.kind, lone.made_by, lone.outside) == ("a student", "nothing says so", {})


def test_what_is_odd_about_a_stranger_s_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    folder = run.path
    text = run.config_file.read_text().replace("plugins: []", "plugins: [no_such_module]")
    run.config_file.write_text(text)
    (folder / "out").symlink_to(tmp_path)
    (folder / "rows").symlink_to("distill")
    os.mkfifo(folder / "pipe.json")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    card = json.loads((folder / "distill/small/arch.json").read_text())
    (folder / "distill/small/arch.json").write_text(json.dumps({**card, "class_names": ["\x1b[31m"] * 100_000}))
    (folder / "distill" / "other").mkdir()
    (folder / "distill/other/arch.json").write_text("[" * 100_000)
    code, out, err = call(capsys, "inspect", folder)
    assert (code, err) == (0, "")
    for said in (
        "made by   somebody else, or its config was changed by hand; tvt_ray ",
        "plugin    no_such_module: code of somebody's",
        f"odd       out is a link to {tmp_path}, which is outside\n",
        "odd       rows is a link to distill\n",
        "odd       pipe.json is neither a file nor a folder",
        "odd       run.sh is marked as a program",
        "odd       run.sh is a file that no version of tvt_ray writes",
        "odd       distill/other/arch.json does not describe a student: it is nested too deeply",
        "odd       distill/small/model.safetensors is missing or smaller than the ",
    ):
        assert said in out
    assert "\x1b" not in out
    code, out, _ = call(capsys, "inspect", folder, "--json")
    assert json.loads(out.splitlines()[-1])["plugins"] == ["no_such_module"]


def test_many_oddities_are_counted_and_a_config_that_is_none_is_said(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &a [1, *a]")
    for number in range(MOST_LISTED + 5):
        (tmp_path / f"{number}.exe").touch()
    found = inspect(tmp_path)
    assert found.kind == "a run"
    assert found.odd[-1] == "and 6 more"
    assert len(found.odd) == MOST_LISTED + 1
    with pytest.raises(UsageError, match=r"absent is no folder of this machine"):
        inspect(tmp_path / "absent")
