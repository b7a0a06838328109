"""Profiles of this machine, and what is checked of a search's choices on it."""

import dataclasses
import itertools

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import OTHER, synthetic_profile, true_ms
from tvt_ray.errors import UsageError
from tvt_ray.latency.profile import load_profile
from tvt_ray.planning.estimate import dry_run
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import Choice
from tvt_ray.runs.inputs import checked_limits, limits_of
from tvt_ray.scoring.ranking import Entry
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.verbs.latency import check_chosen, run_profile
from tvt_ray.vits.vit import ViTSpace

SPACE = SMALL_SPACES["vit"]
TINY = ViTSpace(image_size=16, embed_dim=(24,), depth=(1,), head_dim=(12,), mlp_ratio=(1,), patch_size=(8,))


def limited(**budget):
    return load_config(None, [{"space": SPACE.model_dump(mode="json"), "budget": {"max_latency_ms": 3, **budget}}])


def chosen(count):
    task = ReadingTask(SPACE, 10, (), 0, probe=None)
    archs = itertools.islice(SPACE.enumerate(), count)
    return [Choice.of(Entry(make_row(task, arch, {}, None, 0.5), 1.0), SPACE) for arch in archs]


def check(profile, entries, **budget):
    return check_chosen(entries, limits_of(limited(**budget), 10, profile), profile)


def test_the_chosen_are_measured_on_the_device_of_the_profile_each_once(capsys):
    entries = chosen(2)
    found = check(synthetic_profile(SPACE), [*entries, entries[0]], max_latency_ms=10_000)
    assert found.keys() == {each.arch_id for each in entries}
    for each in entries:
        timed = found[each.arch_id]
        assert timed.predicted_latency_ms == pytest.approx(true_ms(SPACE, SPACE.from_json(each.arch)), rel=1e-3)
        assert timed.latency_ms > 0
        assert (timed.arch, timed.score, timed.params) == (each.arch, each.score, each.params)
    assert "exceed" not in capsys.readouterr().err


def test_what_exceeds_the_limit_is_told_in_one_line(capsys):
    """No student takes a nanosecond."""
    check(synthetic_profile(SPACE), chosen(2), max_latency_ms=1e-6)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "exceed" in line]
    assert line.startswith("latency: 2 of the 2 that were measured exceed 1e-06 ms by more than 10%, most of all vit-")


def test_on_another_device_nothing_is_measured_and_that_is_said(capsys):
    found = check(synthetic_profile(SPACE, device=OTHER), chosen(2))
    assert {each.latency_ms for each in found.values()} == {None}
    assert all(each.predicted_latency_ms > 0 for each in found.values())
    assert capsys.readouterr().err == (
        "latency: predicted for another processor (cpu, 3 cores), which this machine is not; nothing was measured\n"
    )


def test_a_choice_says_its_latency_where_that_is_known():
    choice = chosen(1)[0]
    timed = dataclasses.replace(choice, latency_ms=2.25, predicted_latency_ms=2.5)
    assert timed.to_json() == {**choice.to_json(), "latency_ms": 2.25, "predicted_latency_ms": 2.5}
    assert dataclasses.replace(timed, latency_ms=None).to_json().keys() == {
        *choice.to_json(),
        "predicted_latency_ms",
    }


def test_a_limit_that_none_meets_says_what_the_fastest_takes():
    """A conv stem takes 0.75 ms, patches 0.25, each of two blocks 1, the head 0.125, and a student 0.1 more."""
    profile = synthetic_profile(SPACE)
    with pytest.raises(UsageError) as error:
        checked_limits(limited(max_latency_ms=2), 10, profile)
    expected = "no architecture of this space meets max_latency_ms 2: the fastest is predicted to take 2.48"
    assert str(error.value).rstrip("0123456789") == expected.rstrip("0123456789")
    assert float(str(error.value).split()[-1]) == pytest.approx(2.475, abs=0.006)
    checked_limits(limited(max_latency_ms=2.5), 10, profile)


def test_a_dry_run_counts_what_the_limit_leaves(tmp_path):
    synthetic_profile(SPACE).save(tmp_path / "p.json")
    quick = {"score": {"readings": "score", "calibration_samples": 2}, "probe": {"num_images": 10}}
    config = limited(latency_profile=tmp_path / "p.json").model_dump(mode="json")
    plan = dry_run(load_config(None, [config, quick]))
    inside = [arch for arch in SPACE.enumerate() if true_ms(SPACE, arch) <= 3]
    assert plan.budget == "max_latency_ms 3 for a batch of 1"
    assert plan.budget_share == len(inside) / SPACE.size()
    assert 0 < plan.budget_share < 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_sizes": (1, 0)}, "--batch-size is at least 1; got 0"),
        ({"threads": 0}, "--threads is at least 1; got 0"),
        ({"kind": "tpu"}, "one of cpu, cuda; got 'tpu'"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run_profile(limited(), **{"batch_sizes": (1,), "kind": "cpu", "out": tmp_path / "p.json", **wrong})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_profile_is_written_where_it_was_asked_for_and_the_process_is_as_it_was(tmp_path):
    config = load_config(None, [{"space": TINY.model_dump(mode="json")}])
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    path, profile = run_profile(config, (2, 2), "cpu", 1, tmp_path / "p.json")
    assert path == tmp_path / "p.json"
    assert load_profile(path) == profile
    assert [batch.batch_size for batch in profile.batches] == [2]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
