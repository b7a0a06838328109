"""tvt fit: what it plans and what it refuses. That it fits is in tests/cluster/test_fit.py."""

import json

import pytest

from tests.conftest import call
from tests.data.samples import write_class_folders
from tvt_ray.planning.facts import Speeds
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.provide import save_teacher
from tvt_ray.teachers.settings import TeacherSettings

# Networks of milliseconds; what a plan says of them is measured.
TINY = ["--set", "space.embed_dim=[48]", "--set", "space.depth=[2]", "--set", "space.num_heads=[3]"]
TINY += ["--set", "teacher.name=resnet20", "--set", "teacher.image_size=8"]


@pytest.fixture
def photos(tmp_path):
    return write_class_folders(tmp_path / "photos", ["ant", "bee"], 20)


@pytest.fixture
def speeds(monkeypatch):
    """As if measured; a test may set others."""

    def given(found):
        monkeypatch.setattr("tvt_ray.verbs.fit.measure_speeds", lambda config, data: found)
        monkeypatch.setattr("tvt_ray.verbs.fit.with_students_speed", lambda speeds, config, data: found)

    given(Speeds(teacher_step_s=0.01, student_step_s=0.02, arch_s=0.03))
    return given


@pytest.mark.slow
def test_a_plan_counts_every_phase_and_writes_nothing(capsys, photos, tmp_path):
    """By speeds that it measures."""
    flags = ["--out", tmp_path / "out", "--dry-run", "--minutes", "30", *TINY]
    code, out, err = call(capsys, "fit", photos, *flags, "--json")
    assert code == 0, err
    plan = json.loads(out.splitlines()[-1])
    assert plan["dataset"] == f"imagefolder:{photos}"
    assert (plan["num_train"], plan["num_val"], plan["num_test"]) == (26, 6, 8)
    assert plan["seconds"].keys() == {"choices", "teacher", "search", "distill", "start"}
    assert all(seconds > 0 for seconds in plan["seconds"].values())
    assert not (tmp_path / "out").exists()


def test_a_plan_has_a_line_for_each_phase(capsys, photos, tmp_path, speeds):
    code, out, _ = call(capsys, "fit", photos, "--out", tmp_path / "out", "--dry-run", *TINY)
    assert code == 0
    lines = [line.split()[0] for line in out.splitlines()]
    assert lines == ["data", "teacher", "search", "choices", "distill", "together"]


@pytest.mark.slow
def test_a_teacher_that_is_trained_already_takes_none_of_the_minutes(capsys, photos, tmp_path):
    """Its speed is measured with the students', its weights are read before anything is timed."""
    kept, other = tmp_path / "two.safetensors", tmp_path / "three.safetensors"
    for path, num_classes in ((kept, 2), (other, 3)):
        save_teacher(build_teacher(TeacherSettings(name="resnet20"), num_classes), path)
    flags = ["fit", photos, "--out", tmp_path / "out", "--dry-run", "--minutes", "30", *TINY]
    code, out, err = call(capsys, *flags, "--teacher-weights", kept, "--json")
    assert code == 0, err
    plan = json.loads(out.splitlines()[-1])
    assert plan["teacher_epochs"] == 0
    assert plan["seconds"].keys() == {"search", "distill", "start"}
    _, out, _ = call(capsys, *flags, "--teacher-weights", kept)
    assert "teacher   resnet20, as given: not trained" in out.splitlines()
    code, out, err = call(capsys, *flags, "--teacher-weights", other)
    assert (code, out) == (2, "")
    assert "3 classes" in err.splitlines()[-1]


def test_what_is_set_stays_set(capsys, photos, tmp_path, speeds):
    flags = ["--set", "distill.epochs=3", "--set", "search.num_samples=7", "--seed", "5"]
    _, out, _ = call(capsys, "fit", photos, "--out", tmp_path / "out", "--dry-run", *TINY, *flags, "--json")
    plan = json.loads(out.splitlines()[-1])
    assert (plan["distill_epochs"], plan["num_samples"]) == (3, 7)


def test_students_that_would_make_too_few_steps_are_not_searched(capsys, photos, tmp_path, speeds):
    """Unless somebody says how large they may be, or how long they train."""
    speeds(Speeds(teacher_step_s=0.05, student_step_s=2.0, arch_s=0.03))
    wide = ["--set", "space.embed_dim=[24,48,96]", "--set", "space.depth=[2,4,8]", *TINY[4:]]
    flags = ["fit", photos, "--out", tmp_path / "out", "--dry-run", *wide, "--json"]
    found = {}
    for more in ((), ("--max-flops", "90M"), ("--set", "distill.epochs=3")):
        code, out, err = call(capsys, *flags, *more)
        assert code == 0, err
        found[more] = json.loads(out.splitlines()[-1])["max_flops"]
    assert 1e5 < found.pop(()) < 2e7
    assert list(found.values()) == [90_000_000, None]
    _, out, _ = call(capsys, *flags[:-1])
    assert "FLOPs: about" in out


def test_without_minutes_a_slow_machine_takes_what_it_needs(capsys, photos, tmp_path, speeds):
    """Nobody asked for eight, so nobody is refused for them."""
    speeds(Speeds(teacher_step_s=2.0, student_step_s=2.0, arch_s=0.1))
    flags = ["--out", tmp_path / "out", "--dry-run", *TINY, "--json"]
    code, out, err = call(capsys, "fit", photos, *flags)
    assert code == 0, err
    minutes = sum(json.loads(out.splitlines()[-1])["seconds"].values()) / 60
    assert 32 < minutes < 36  # the floors, three short trainings of the teacher, and the search
    code, _, err = call(capsys, "fit", photos, *flags, "--minutes", "8")
    assert code == 2
    assert "--minutes 8 is too little" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["no/such/folder"], "there is no no/such/folder"),
        (["PHOTOS", "--minutes", "0"], "argument --minutes: a number above 0; got 0"),
        (["PHOTOS", "--minutes", "inf"], "argument --minutes: a number above 0; got inf"),
        (["PHOTOS", "--seed", "-1"], "seed: Input should be greater than or equal to 0 (got -1)"),
        (["PHOTOS", "--minutes", "0.2"], "--minutes 0.2 is too little"),
        (["PHOTOS", "--minutes", "soon"], "a number above 0; got 'soon'"),
        (["PHOTOS", "--max-params", "10"], "no architecture of this space meets max_params 10"),
        (["PHOTOS", "--set", "distill.augment.auto_augment=rnd"], "config distill.augment.auto_augment: timm"),
        (["PHOTOS", "--set", "distill.epoch=3"], "did you mean 'distill.epochs'"),
    ],
)
def test_what_cannot_be_done_is_one_line(flags, message, capsys, photos, tmp_path, speeds):
    words = [str(photos) if word == "PHOTOS" else word for word in flags]
    code, out, err = call(capsys, "fit", *words, "--out", tmp_path / "out", *TINY)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_where_it_is_to_go_is_looked_at_first(capsys, photos, tmp_path):
    (tmp_path / "notes").write_text("mine")
    refused = {
        tmp_path / "notes": "is no folder that can be written to",
        "": "a path is empty",
        photos: "lies in the dataset's own folder",
        photos / "run": "lies in the dataset's own folder",
    }
    for out, message in refused.items():
        code, _, err = call(capsys, "fit", photos, "--out", out, *TINY)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert sorted(path.name for path in photos.iterdir()) == ["ant", "bee"]
    assert (tmp_path / "notes").read_text() == "mine"
