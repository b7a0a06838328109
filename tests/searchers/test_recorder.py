"""Rows as they arrive: written at once, told once they can be scored, counted and judged."""

import dataclasses
import time

import pytest

from tests.searchers.dealing import readings
from tests.searchers.driving import Remembering
from tvt_ray.errors import RunError, UsageError
from tvt_ray.scoring.reader import make_row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.recorder import MIN_ROWS_TO_JUDGE, Recorder, Scorer
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits.budget import Budget, Limits


@pytest.fixture
def sampler(medium_task):
    algorithm = build_algorithm(SearchSettings(), medium_task.space, 0)
    return Remembering(algorithm, Limits(medium_task.space, Budget(), medium_task.num_classes), 0)


@pytest.fixture
def new(medium_task, sampler):
    """So many architectures that were never given out, and the rows of reading them."""

    def draw(count, error=None):
        archs = [sampler.ask() for _ in range(count)]
        space = medium_task.space
        return archs, [make_row(medium_task, a, {} if error else readings(space, a), error, 0.5) for a in archs]

    return draw


def on(device, drawn):
    archs, rows = drawn
    return archs, [dataclasses.replace(row, device=device) for row in rows]


def test_another_device_is_told_of_once(make, calibration, new, capsys):
    recorder = make(Scorer("capacity", calibration=calibration))
    recorder.replay([(arch, row) for arch, row in zip(*on("CPU, AVX2", new(3)), strict=True)])
    for device in ("CPU, AVX2", "a GPU", "a GPU", "CPU, AVX2"):
        recorder.record(*on(device, new(2)))
    assert (
        capsys.readouterr().err
        == "rows are read on a GPU from now on too, before on CPU, AVX2: last digits of readings differ\n"
    )


def test_rows_of_an_unknown_device_are_no_other_one(make, calibration, new, capsys):
    recorder = make(Scorer("capacity", calibration=calibration))
    recorder.replay([(arch, row) for arch, row in zip(*on("", new(3)), strict=True)])
    recorder.record(*on("a GPU", new(2)))
    recorder.record(*on("", new(1, "its worker died")))
    assert capsys.readouterr().err == ""


@pytest.fixture
def calibration(medium_task, new):
    return Calibration.from_rows(new(8)[1])


@pytest.fixture
def written():
    return []


@pytest.fixture
def heard():
    """What the recorder's watcher was told: ids, and the best so far."""
    return []


@pytest.fixture
def make(written, sampler, heard):
    def build(scorer, **options):
        def watch(rows, best):
            heard.append(([row.arch_id for row in rows], best))

        return Recorder(written.extend, sampler, scorer, "random", watch, **options)

    return build


def ids(rows):
    return [row.arch_id for row in rows]


def test_rows_are_written_with_who_proposed_them_and_told_by_their_score(make, new, calibration, written, sampler):
    recorder, (archs, rows) = make(Scorer("capacity", calibration=calibration)), new(3)
    recorder.record(archs, rows)
    assert written == [dataclasses.replace(row, searcher="random") for row in rows]
    scores = [calibration.score("capacity", row) for row in rows]
    assert sampler.told == [(arch, (score,)) for arch, score in zip(archs, scores, strict=True)]
    assert recorder.best == max(scores)
    assert recorder.num_rows == 3


def test_with_two_objectives_flops_are_told_too(make, new, calibration, sampler):
    recorder, (archs, rows) = make(Scorer("capacity", 2, calibration)), new(2)
    recorder.record(archs, rows)
    assert [values for _, values in sampler.told] == [
        (calibration.score("capacity", row), float(row.flops)) for row in rows
    ]


def test_the_best_is_of_all_rows_so_far(make, new, heard, calibration):
    recorder = make(Scorer("params", calibration=calibration))
    (archs, rows) = new(6)
    for start in range(0, 6, 2):
        recorder.record(archs[start : start + 2], rows[start : start + 2])
    params = [float(row.params) for row in rows]
    assert heard == [(ids(rows[start : start + 2]), max(params[: start + 2])) for start in range(0, 6, 2)]


def test_a_failed_row_is_told_as_such_and_counted_by_its_reason(make, new, calibration, sampler, heard, written):
    recorder = make(Scorer("capacity", calibration=calibration))
    archs, rows = new(2, error="KeyError: 'x'")
    recorder.record(archs, rows)
    assert sampler.told == [(arch, None) for arch in archs]
    assert recorder.errors == {"KeyError: 'x'": 2}
    assert recorder.best is None
    assert heard == [(ids(rows), None)]
    assert [row.status for row in written] == ["failed", "failed"]


def test_rows_that_wait_for_the_calibration_are_written_and_told_later_in_order(
    make, new, calibration, sampler, heard, written
):
    recorder, (archs, rows) = make(Scorer("capacity")), new(4)
    recorder.record(archs[:3], rows[:3])
    recorder.record(archs[3:], rows[3:])
    assert ids(written) == ids(rows)
    assert recorder.num_rows == 4
    assert (sampler.told, heard, recorder.best) == ([], [], None)
    recorder.calibrate(calibration)
    scores = [calibration.score("capacity", row) for row in rows]
    assert sampler.told == [(arch, (score,)) for arch, score in zip(archs, scores, strict=True)]
    assert heard == [(ids(rows), max(scores))]
    recorder.record(*new(1))
    assert len(sampler.told) == 5  # from now on at once
    assert len(heard) == 2


def test_an_earlier_runs_rows_are_told_at_once_where_they_can_be_scored(make, new, calibration, sampler, heard):
    recorder, (archs, rows) = make(Scorer("capacity", calibration=calibration)), new(3)
    recorder.replay(list(zip(archs, rows, strict=True)))
    scores = [calibration.score("capacity", row) for row in rows]
    assert sampler.told == [(arch, (score,)) for arch, score in zip(archs, scores, strict=True)]
    assert recorder.best == max(scores)
    assert (recorder.num_rows, heard) == (0, [])  # they are not this run's


def test_an_earlier_runs_rows_come_before_this_runs_once_there_is_a_calibration(make, new, calibration, sampler):
    recorder, (archs, rows) = make(Scorer("capacity")), new(5)
    recorder.replay(list(zip(archs[:3], rows[:3], strict=True)))
    recorder.record(archs[3:], rows[3:])
    assert sampler.told == []
    recorder.calibrate(calibration)
    assert [arch for arch, _ in sampler.told] == archs
    assert recorder.best == max(calibration.score("capacity", row) for row in rows)
    assert recorder.num_rows == 2


def test_the_best_of_an_earlier_run_is_not_forgotten(make, new, calibration):
    recorder, (archs, rows) = make(Scorer("params", calibration=calibration)), new(12)
    pairs = sorted(zip(archs, rows, strict=True), key=lambda pair: -pair[1].params)
    recorder.replay(pairs[:1])
    recorder.record([pairs[-1][0]], [pairs[-1][1]])
    assert recorder.best == pairs[0][1].params


def test_nothing_of_an_earlier_run_is_proposed_again(medium_task, sampler, make, new, calibration):
    earlier = new(20)
    again = build_algorithm(SearchSettings(), medium_task.space, 0)
    resumed = Remembering(again, Limits(medium_task.space, Budget(), medium_task.num_classes), 0)
    for scorer in (Scorer("capacity", calibration=calibration), Scorer("capacity")):
        recorder = Recorder(lambda rows: None, resumed, scorer)
        recorder.replay(list(zip(*earlier, strict=True)))
        assert not {resumed.ask() for _ in range(50)} & set(earlier[0])


@pytest.mark.parametrize("kind", [RunError, UsageError])
def test_rows_that_cannot_be_written_end_the_run_and_are_not_told(kind, sampler, new, calibration):
    def full(rows):
        raise kind("the disk is full")

    recorder = Recorder(full, sampler, Scorer("capacity", calibration=calibration))
    recorder.record(*new(2))
    assert recorder.stop_reason == "the disk is full"
    assert (recorder.num_rows, sampler.told, recorder.best) == (0, [], None)


def test_what_is_no_matter_of_the_disk_is_raised(sampler, new):
    def broken(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Recorder(broken, sampler, Scorer("capacity")).record(*new(1))


@pytest.mark.parametrize("calibrated", [True, False])
def test_too_many_failures_are_judged_once_there_are_enough_rows(calibrated, make, new, calibration):
    recorder = make(Scorer("capacity", calibration=calibration if calibrated else None), max_failure_share=0.5)
    recorder.record(*new(MIN_ROWS_TO_JUDGE - 9))
    recorder.record(*new(8, error="TypeError: rare"))
    assert recorder.stop_reason is None
    recorder.record(*new(11, error="KeyError: 'x'"))
    assert recorder.stop_reason == (
        "19 of 30 architectures failed, more than search.max_failure_share 0.5 allows; 11 with: KeyError: 'x'"
    )


def test_a_few_failures_say_nothing(make, new, calibration):
    recorder = make(Scorer("capacity", calibration=calibration), max_failure_share=0.0)
    recorder.record(*new(MIN_ROWS_TO_JUDGE - 1, error="KeyError: 'x'"))
    assert recorder.stop_reason is None
    recorder.record(*new(1))
    assert "19 of 20 architectures failed" in recorder.stop_reason


@pytest.mark.parametrize(("share", "num_failed", "stops"), [(0.5, 20, False), (0.5, 21, True), (1.0, 40, False)])
def test_a_share_of_failures_that_is_allowed_does_not_end_the_run(share, num_failed, stops, make, new, calibration):
    recorder = make(Scorer("capacity", calibration=calibration), max_failure_share=share)
    recorder.record(*new(40 - num_failed))
    recorder.record(*new(num_failed, error="KeyError: 'x'"))
    assert (recorder.stop_reason is not None) == stops


def test_an_earlier_runs_failures_are_not_held_against_this_one(make, new, calibration):
    recorder = make(Scorer("capacity", calibration=calibration), max_failure_share=0.1)
    recorder.replay(list(zip(*new(50, error="KeyError: 'x'"), strict=True)))
    recorder.record(*new(MIN_ROWS_TO_JUDGE))
    assert recorder.stop_reason is None
    assert recorder.best is not None


def test_time_is_counted_from_when_the_first_row_began_to_be_read(make, new, calibration):
    recorder = make(Scorer("capacity", calibration=calibration))
    assert recorder.seconds == 0.0
    recorder.record(*new(3))
    assert recorder.seconds == pytest.approx(1.5)  # half a second each
    time.sleep(0.02)
    recorder.record(*new(3))
    assert recorder.seconds >= 1.52
