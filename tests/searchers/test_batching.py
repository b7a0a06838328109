"""Who reads what next: each architecture once, in batches of a few seconds, the calibration sample first."""

import itertools
import random
import time

import pytest

from tests.searchers.dealing import make_run
from tvt_ray.errors import UsageError
from tvt_ray.scoring.scores import Calibration
from tvt_ray.searchers.batching import BATCH_SECONDS, MAX_BATCH
from tvt_ray.vits.budget import Budget


def sizes(batches):
    return [len(batch.archs) for batch in batches]


def draw(space, count):
    """Different architectures, the sample of a test."""
    return list(itertools.islice(space.enumerate(), count))


@pytest.mark.parametrize("searcher", ["random", "exhaustive", "evolution"])
@pytest.mark.parametrize("num_workers", [1, 2, 7])
def test_every_architecture_is_given_out_and_recorded_once(searcher, num_workers, task):
    total = task.space.size()
    run = make_run(task, total, searcher=searcher)
    given, rng = [], random.Random(0)
    while not run.dispatcher.over:
        batch = run.read(f"w{rng.randrange(num_workers)}", rng.choice((0.1, 1.0, 5.0)))
        given += batch.archs if batch else []
    assert len(given) == len(set(given)) == total
    assert run.ids == [run.id(arch) for arch in given]
    assert {row.searcher for row in run.written} == {searcher}
    assert [arch for arch, _ in run.sampler.told] == given
    assert sum(run.counts) == total
    assert not run.dispatcher.has_work


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_repeated_however_workers_come_and_die(seed, task):
    """Workers come, ask, answer and die in any order; only what kills them again and again may be a failed row."""
    rng, total = random.Random(seed), task.space.size() - 3
    sample = draw(task.space, 5)
    run = make_run(task, total, sample)
    dispatcher, names, working = run.dispatcher, itertools.count(), {}
    for _ in range(100_000):
        if dispatcher.over:
            break
        act = rng.random()
        if act < 0.15 or not working:
            working[f"w{next(names)}"] = None
        worker = rng.choice(list(working))
        if act > 0.85:
            del working[worker]
            dispatcher.lost(worker, "it died")
        elif working[worker] is None:
            working[worker] = dispatcher.next(worker)
        else:
            dispatcher.done(worker, run.measure(working[worker], rng.choice((0.2, 2.0))))
            working[worker] = None
    assert dispatcher.over
    assert run.recorder.stop_reason is None
    assert len(run.ids) == len(set(run.ids)) == total
    assert [[row.arch_id for row in rows] for rows in run.calibrated] == [[run.id(arch) for arch in sample]]
    assert sorted(run.id(arch) for arch, _ in run.sampler.told) == sorted(run.ids)
    assert sum(run.counts) == total + len(sample)


def test_a_run_that_asks_for_more_than_there_is_ends_with_what_there_is(task):
    run = make_run(task, 10 * task.space.size())
    run.read_all()
    assert sorted(run.ids) == sorted(run.id(arch) for arch in task.space.enumerate())
    assert run.dispatcher.over
    assert run.sampler.exhausted


def test_a_budget_that_nothing_meets_ends_the_run(task, monkeypatch):
    monkeypatch.setattr("tvt_ray.searchers.recorder.MAX_RANDOM_REJECTIONS", 50)
    run = make_run(task, 10, budget=Budget(max_params=1))
    assert run.dispatcher.next("w") is None
    assert run.dispatcher.over
    assert run.recorder.stop_reason is None


def test_a_run_with_nothing_left_to_read_is_over_at_once(task):
    dispatcher = make_run(task, 0).dispatcher
    assert dispatcher.over
    assert not dispatcher.has_work
    assert dispatcher.next("w") is None


def test_a_sample_alone_is_work(task):
    run = make_run(task, 0, draw(task.space, 3))
    assert run.dispatcher.has_work
    assert not run.dispatcher.over
    run.read_all()
    assert len(run.calibrated) == 1
    assert run.dispatcher.over
    assert run.written == []  # the sample is no part of the search


@pytest.mark.parametrize(
    ("seconds", "size"), [(1.0, 4), (0.5, 8), (0.0625, 64), (0.001, 64), (0.0, 64), (3.0, 1), (100.0, 1)]
)
def test_a_batch_takes_about_four_seconds_at_the_workers_own_pace(seconds, size, medium_task):
    assert (BATCH_SECONDS, MAX_BATCH) == (4.0, 64)
    run = make_run(medium_task, 1000)
    assert sizes([run.read("w", seconds), run.read("w", seconds)]) == [1, size]  # the first also pays for the start
    assert len(run.dispatcher.next("another").archs) == 1


def test_the_pace_is_the_middle_of_the_last_batch(medium_task):
    run = make_run(medium_task, 1000)
    run.read("w", 1.0)
    batch = run.dispatcher.next("w")
    assert len(batch.archs) == 4
    measured = [
        (each[0], None, seconds, "CPU") for each, seconds in zip(run.measure(batch), (9, 2, 0.1, 1), strict=True)
    ]
    run.dispatcher.done("w", measured)
    assert len(run.dispatcher.next("w").archs) == 2


def test_batches_shrink_near_the_end(medium_task):
    run = make_run(medium_task, 16)
    assert sizes(run.read_all(seconds=0.125)) == [1, 8, 4, 2, 1]


def test_near_the_end_batches_are_shared_among_the_workers(medium_task):
    run = make_run(medium_task, 43)
    for worker in ("a", "b", "c"):
        run.read(worker, 0.2)
    assert sizes(run.dispatcher.next(worker) for worker in ("a", "b", "c")) == [7, 6, 5]  # a sixth of 40, 33 and 27


def test_a_batch_size_that_is_given_is_kept_to_until_near_the_end(medium_task):
    run = make_run(medium_task, 30, batch_size=5)
    batches = sizes(run.read_all(seconds=0.001))
    assert batches[:5] == [5, 5, 5, 5, 5]
    assert max(batches) == 5
    assert sum(batches) == 30
    slow = make_run(medium_task, 30, batch_size=5)
    assert sizes(slow.read_all(seconds=60.0)) == batches


def test_the_sample_comes_first_and_in_any_number_of_batches(medium_task):
    sample = draw(medium_task.space, 12)
    run = make_run(medium_task, 20, sample)
    batches = run.read_all(seconds=0.5)
    assert sizes(batches)[:5] == [1, 6, 3, 1, 1]
    assert [batch.calibrates for batch in batches] == [True] * 5 + [False] * (len(batches) - 5)
    assert [arch for batch in batches[:5] for arch in batch.archs] == sample
    assert [[row.arch_id for row in rows] for rows in run.calibrated] == [[run.id(arch) for arch in sample]]
    assert len(run.ids) == 20


def test_the_sample_is_told_in_its_own_order_whoever_reads_which_first(task):
    sample = draw(task.space, 6)
    run = make_run(task, 4, sample, batch_size=1)
    batches = {worker: run.dispatcher.next(worker) for worker in "abcdef"}
    assert not run.dispatcher._sample
    for worker in "fbdace":
        run.dispatcher.done(worker, run.measure(batches[worker]))
    assert [[row.arch_id for row in rows] for rows in run.calibrated] == [[run.id(arch) for arch in sample]]


def test_rows_of_the_search_that_come_before_the_calibration_are_told_once_it_is_there(task):
    sample = draw(task.space, 2)
    run = make_run(task, 6, sample)
    run.read("quick")
    slow = run.dispatcher.next("slow")
    assert slow.calibrates
    while run.read("quick", 4.0) is not None:
        pass
    assert len(run.written) == 6  # written as they come
    assert run.sampler.told == []
    assert not run.dispatcher.over  # the sample is not whole yet
    run.dispatcher.done("slow", run.measure(slow))
    assert [run.id(arch) for arch, _ in run.sampler.told] == run.ids
    scale = Calibration.from_rows(run.calibrated[0])
    assert [values for _, values in run.sampler.told] == [(scale.score("capacity", row),) for row in run.written]
    assert run.recorder.best == max(values[0] for _, values in run.sampler.told)
    assert run.dispatcher.over


def test_a_sample_of_which_none_can_be_read_ends_the_run_with_the_reason(task):
    run = make_run(task, 6, draw(task.space, 2), batch_size=2)
    for worker in ("a", "b"):
        run.dispatcher.next(worker)
        run.dispatcher.done(worker, [({}, "RuntimeError: no", 0.1, "CPU")])
    assert run.dispatcher.over
    assert run.dispatcher.stop_reason == "none of the 2 could be read; the first: RuntimeError: no"
    assert run.dispatcher.next("a") is None


def test_a_sample_of_which_some_fail_calibrates_with_the_others(task):
    run = make_run(task, 3, draw(task.space, 3), batch_size=1)
    run.read("w")
    run.dispatcher.next("w")
    run.dispatcher.done("w", [({}, "RuntimeError: no", 0.1, "CPU")])
    run.read_all()
    assert [row.status for row in run.calibrated[0]] == ["ok", "failed", "ok"]
    assert len(run.sampler.told) == 3


def test_a_worker_that_asks_again_is_given_the_same(task):
    run = make_run(task, 9)
    assert run.dispatcher.next("w") is run.dispatcher.next("w")
    assert run.dispatcher.num_workers == 1


def test_what_a_worker_without_a_batch_says_is_no_result(task):
    run = make_run(task, 9)
    batch = run.read("w")
    for worker in ("w", "stranger"):
        run.dispatcher.done(worker, run.measure(batch))
    assert run.ids == [run.id(batch.archs[0])]
    assert run.counts == [1]


def test_a_worker_that_rests_is_given_nothing_new_and_its_loss_is_no_failed_start(task):
    run = make_run(task, total=4)
    dispatcher = run.dispatcher
    assert dispatcher.rest("leaves") is None
    batch = dispatcher.next("stays")
    assert dispatcher.rest("stays") is batch  # which it has to say something of yet
    dispatcher.lost("leaves", "its node was lost")
    assert (dispatcher.num_failed_starts, dispatcher.num_workers) == (0, 1)
    run.read_all("stays")
    assert dispatcher.over


def test_a_worker_waits_while_others_read_the_last(task):
    run = make_run(task, 2)
    run.dispatcher.next("a")
    last = run.dispatcher.next("b")
    assert run.dispatcher.next("c") is None
    assert not run.dispatcher.has_work
    assert not run.dispatcher.over
    run.read("a")
    assert not run.dispatcher.over
    run.dispatcher.done("b", run.measure(last))
    assert run.dispatcher.over


def test_stopping_gives_out_no_more_and_keeps_what_arrived(task):
    run = make_run(task, 9)
    run.read("a")
    pending = run.dispatcher.next("a")
    run.dispatcher.stop("asked to end")
    run.dispatcher.stop("asked again")
    assert run.dispatcher.stop_reason == "asked to end"
    assert run.dispatcher.over
    assert run.dispatcher.next("b") is None
    run.dispatcher.done("a", run.measure(pending))  # it was on its way
    assert len(run.ids) == 1 + len(pending.archs)
    assert run.dispatcher.next("a") is None


def test_too_many_failures_end_the_run(medium_task):
    run = make_run(medium_task, 500, max_failure_share=0.5)
    dispatcher = run.dispatcher
    while not dispatcher.over:
        batch = dispatcher.next("w")
        dispatcher.done("w", [({}, "KeyError: 'x'", 1.0, "CPU")] * len(batch.archs))
    assert 20 <= len(run.written) < 30
    assert "more than search.max_failure_share 0.5 allows" in dispatcher.stop_reason
    assert "KeyError: 'x'" in dispatcher.stop_reason


def test_rows_that_cannot_be_written_end_the_run(task):
    run = make_run(task, 9)

    def full(rows):
        raise UsageError("part-000001.parquet cannot be read")

    run.recorder._write = full
    run.read("w")
    assert run.dispatcher.over
    assert run.dispatcher.stop_reason == "part-000001.parquet cannot be read"
    assert run.sampler.told == []


def test_time_is_counted_from_the_first_workers_first_word_to_the_last_result(task):
    run = make_run(task, 9)
    assert run.dispatcher.seconds == 0.0
    before = time.perf_counter()
    run.dispatcher.next("a")
    time.sleep(0.02)
    run.read("a")
    first = run.dispatcher.seconds
    assert 0.02 <= first <= time.perf_counter() - before
    run.read("b")
    last = run.dispatcher.seconds
    assert last > first
    time.sleep(0.02)
    run.dispatcher.next("b")
    assert run.dispatcher.seconds == last


@pytest.mark.parametrize(("seconds", "least"), [(0.02, 10), (0.05, 4), (0.15, 1), (3.0, 1)])
def test_near_the_end_a_batch_lasts_a_fifth_of_a_second_at_least(seconds, least, medium_task):
    """Of a hundred workers that share the rest evenly each would have one architecture at a time."""
    run = make_run(medium_task, 220)
    for number in range(100):
        run.dispatcher.next(f"w{number}")
    run.dispatcher.done("w0", run.measure(run.dispatcher.next("w0"), seconds))
    assert run.dispatcher.left == 120
    assert len(run.dispatcher.next("w0").archs) == least
