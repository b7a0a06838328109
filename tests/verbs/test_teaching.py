"""What is decided before anything trains."""

import pytest

from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.teachers.training import Verdict
from tvt_ray.verbs.teaching import guided_or_not

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
