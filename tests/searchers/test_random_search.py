"""Random search draws one sequence, however often it is interrupted."""

import pytest

from tests.searchers.driving import MEDIUM, drive, make, replay


@pytest.mark.parametrize("lost", [0, 3])
def test_interrupted_random_search_ends_with_the_same_set(lost):
    whole = set(drive(make("random", MEDIUM), MEDIUM, 60))
    begun = drive(make("random", MEDIUM), MEDIUM, 30)
    kept = begun[: len(begun) - lost]  # those in flight were lost
    sampler = make("random", MEDIUM)
    for arch in kept:
        replay(sampler, arch, (0.0,))
    assert {*kept, *drive(sampler, MEDIUM, 60 - len(kept))} == whole


def test_a_long_random_search_is_caught_up_with_when_it_is_resumed(monkeypatch):
    """However many rows there are, passing over them is not what ends the search for a new architecture."""
    begun = drive(make("random", MEDIUM), MEDIUM, 60)
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_RANDOM_REJECTIONS", 5)
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_ENUMERATION", 0)
    sampler = make("random", MEDIUM)
    for arch in begun[:40]:
        replay(sampler, arch, (0.0,))
    assert drive(sampler, MEDIUM, 20) == begun[40:]


def test_draws_do_not_depend_on_results():
    told, untold = make("random", MEDIUM), make("random", MEDIUM)
    assert drive(told, MEDIUM, 30) == drive(untold, MEDIUM, 30, tell=False)
