"""Folders of strangers: what they name outside of themselves is not gone to, unless the user names it again."""

import pytest

from tests.conftest import SMALL_SPACES, call
from tests.data.samples import write_class_folders
from tests.exports.conftest import write_folder
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.ownership import check_named, outside
from tvt_ray.verbs.evaluate import evaluate
from tvt_ray.verbs.export import export
from tvt_ray.verbs.session import session_of


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A run that another user made, of images that this user has."""
    private = write_class_folders(tmp_path / "private", ["a", "b"], 12)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.claim(RunConfig().with_(data={"name": f"imagefolder:{private}"}))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "ours"))
    return folder


def test_a_run_of_ones_own_is_gone_on_with_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "ours"))
    folder = RunFolder(tmp_path / "run")
    folder.make()
    config = RunConfig().with_(data={"name": f"imagefolder:{tmp_path}"})
    folder.claim(config)
    assert folder.is_own
    assert folder.config_for({}) == config
    assert (tmp_path / "ours/tvt_ray/key").stat().st_mode & 0o777 == 0o600
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert RunFolder(moved).is_own
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace("seed: 0", "seed: 1", 1))
    assert not RunFolder(moved).is_own


def test_what_a_stranger_names_has_to_be_named_again(stranger, tmp_path):
    named = f"imagefolder:{tmp_path / 'private'}"
    with pytest.raises(UsageError, match=rf"was made elsewhere, .*--set data\.name={named}$"):
        stranger.config_for({"seed": 1})
    assert stranger.config_for({"data": {"name": named}}).data.name == named
    with pytest.raises(UsageError, match="was made elsewhere"), session_of(str(stranger.path), {"seed": 1}):
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["search", "--resume", "--run-dir"],
        ["refine", "--run-dir"],
        ["distill", "--run-dir"],
        ["score", "--arch", "arch.json", "--run-dir"],
    ],
)
def test_commands_refuse_it_before_anything_is_read(capsys, stranger, words, tmp_path):
    (tmp_path / "private" / "a").rename(tmp_path / "gone")  # else this would be said
    code, out, err = call(capsys, *words, stranger.path)
    assert (code, out) == (2, "")
    assert "was made elsewhere, or its config was changed by hand" in err.splitlines()[-1]


def test_a_stranger_s_run_stays_one_when_this_user_writes_into_it(stranger):
    stranger.claim(stranger.config().with_(score={"name": "params"}))
    assert stranger.config().score.name == "params"
    assert not stranger.is_own


def test_who_is_killed_while_a_config_is_written_has_a_run_of_ones_own(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.claim(RunConfig())
    monkeypatch.setattr("tvt_ray.runs.folder.write_atomically", lambda path, data: None)
    folder.claim(RunConfig(seed=1))
    assert folder.config().seed == 0
    assert folder.is_own


def test_places_are_those_that_are_read_or_fetched(tmp_path):
    assert outside(RunConfig()) == {}
    config = RunConfig().with_(
        data={"name": "cifar10", "root": str(tmp_path)},
        teacher={"name": "timm:hf-hub:them/net", "weights": str(tmp_path / "w.pth")},
        distill={"init": str(tmp_path / "v.safetensors")},
        budget={"max_latency_ms": 1, "latency_profile": str(tmp_path / "p.json")},
    )
    pattern, column = (RunConfig().with_(data={"group_by": text}) for text in ("(a+)+$", "patient id"))
    assert (outside(pattern), outside(column)) == ({"data.group_by": "(a+)+$"}, {})
    with pytest.raises(UsageError, match=r"name them again: --set 'data\.group_by=\(a\+\)\+\$'$"):
        check_named(tmp_path, pattern, {})
    assert outside(config).keys() == {
        "data.root",
        "teacher.name",
        "teacher.weights",
        "distill.init",
        "budget.latency_profile",
    }


@pytest.mark.slow
def test_a_student_in_a_stranger_s_run_is_measured_on_what_the_user_names(stranger, tmp_path):
    student = write_folder(stranger.path / "distill" / "small", SMALL_SPACES["autoformer"], class_names=("a", "b"))
    with pytest.raises(UsageError, match=r"was made elsewhere, .*--set data\.name=imagefolder:"):
        evaluate(student)
    assert not (stranger.path / "evaluations").exists()
    exported = export(student, "timm", out=tmp_path / "out")
    assert exported.checked_on == "noise"
    assert any("was made elsewhere" in note for note in exported.notes)
    found = evaluate(student, f"imagefolder:{tmp_path / 'private'}")
    assert found.quality.num_images > 0
    assert exported.teacher.name == "resnet20"  # the network alone, whose name leads nowhere
