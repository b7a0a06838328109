"""What is decided before anything trains, and what trainings of a run go on from."""

import pytest

from benchmarks.ground_truth import sample_archs
from tests.conftest import SMALL_SPACES
from tvt_ray.cluster.cohorts import state_name
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.runs.identity import Rounds
from tvt_ray.teachers.training import Verdict
from tvt_ray.verbs.trainings import guided_or_not, take_over

GOOD, BAD = Verdict(90.0, 54.0, 100), Verdict(60.0, 54.0, 100)


@pytest.mark.parametrize(
    ("guided", "verdict", "followed", "said"),
    [
        ("auto", GOOD, True, ""),
        ("auto", BAD, False, "resnet20 is not followed: it names 60.0 % of 100 validation images right"),
        ("always", BAD, True, "resnet20 is followed, though it names 60.0 %"),
        ("never", GOOD, False, ""),
    ],
)
def test_a_teacher_is_followed_where_it_is_worth_it_or_the_settings_say_so(guided, verdict, followed, said, capsys):
    settings = guided_or_not(DistillSettings(guided=guided), verdict, "resnet20")
    told = capsys.readouterr().err
    assert settings.loss.follow_teacher is followed
    assert said in told
    assert bool(said) == bool(told)


def test_who_follows_no_teacher_anyway_is_not_told_of_it(capsys):
    settings = DistillSettings(loss={"weights": {"cross_entropy": 1.0}})
    assert guided_or_not(settings, BAD, "resnet20") == settings
    assert capsys.readouterr().err == ""


SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def task():
    (arch,) = sample_archs(SPACE, 1, seed=0)
    return DistillTask(SPACE, arch, 2, DistillSettings(epochs=3))


@pytest.fixture
def refined(run_folder, task):
    """A run in which refine trained one student by the recipe `abc`."""
    Rounds("abc", epochs=3, seed=0, rungs=(1, 2), students=((task.arch_id,),)).save(run_folder.rounds_file)
    state = run_folder.refine_folder / state_name(task) / "checkpoint.pt"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"of refine")
    return run_folder


def place(task):
    return f"distill/{task.arch_id}"


def state_of(folder, task):
    return folder.distill_folder / task.arch_id / "checkpoint.pt"


def test_a_student_goes_on_from_what_refine_trained_by_the_same_recipe(refined, task, capsys):
    take_over(refined, place(task), task, "abc")
    assert state_of(refined, task).read_bytes() == b"of refine"
    assert f"{task.arch_id} goes on from what refine trained" in capsys.readouterr().err


def test_it_starts_anew_by_another_recipe_and_says_so(refined, task, capsys):
    take_over(refined, place(task), task, "other")
    assert not state_of(refined, task).exists()
    assert f"{task.arch_id} starts anew: refine trained it by other settings" in capsys.readouterr().err


def test_what_distil_itself_trained_is_gone_on_from(refined, task, capsys):
    state_of(refined, task).parent.mkdir(parents=True)
    state_of(refined, task).write_bytes(b"of distil")
    take_over(refined, place(task), task, "abc")
    assert state_of(refined, task).read_bytes() == b"of distil"
    assert capsys.readouterr().err == ""


def test_a_run_that_was_never_refined_says_nothing_of_it(run_folder, task, capsys):
    take_over(run_folder, place(task), task, "abc")
    assert not state_of(run_folder, task).exists()
    assert capsys.readouterr().err == ""


def test_another_seed_is_another_training(refined, task):
    other = DistillTask(SPACE, task.arch, 2, DistillSettings(epochs=3, seed=1))
    take_over(refined, place(other), other, "abc")
    assert not state_of(refined, other).exists()
