"""What becomes of a dead worker's batch, and of a run whose workers do not come to life."""

import itertools

import pytest

from tests.searchers.dealing import make_run
from tvt_ray.searchers.batching import MAX_BACKOFF_S, MAX_FAILED_STARTS, MAX_LOSSES, Dispatcher


@pytest.fixture
def run(medium_task):
    return make_run(medium_task, 100, batch_size=4)


@pytest.fixture
def dispatcher(run):
    return run.dispatcher


def lose(dispatcher, times, reason="it died"):
    """Workers that take what comes next and die with it; the last batch."""
    batch = None
    for _ in range(times):
        dispatcher.next("mortal")
        batch = dispatcher.next("mortal")
        dispatcher.lost("mortal", reason)
    return batch


def test_a_lost_batch_is_given_out_again_before_anything_new(run):
    lost = run.dispatcher.next("a")
    run.dispatcher.lost("a", "it died")
    assert run.dispatcher.num_workers == 0
    again = run.dispatcher.next("b")
    assert again.archs == lost.archs
    assert again.losses == 1
    run.dispatcher.done("b", run.measure(again))
    assert run.ids == [run.id(arch) for arch in lost.archs]
    assert not set(run.dispatcher.next("b").archs) & set(lost.archs)


def test_a_worker_that_waits_takes_a_dead_ones_batch(task):
    run = make_run(task, 1)
    lost = run.dispatcher.next("a")
    assert run.dispatcher.next("b") is None
    run.dispatcher.lost("a", "it died")
    assert run.dispatcher.has_work
    assert not run.dispatcher.over
    assert run.dispatcher.next("b").archs == lost.archs


def test_a_batch_that_is_lost_too_often_is_split_so_that_only_the_killer_fails(run, dispatcher):
    archs = lose(dispatcher, 1).archs
    assert len(archs) == 4
    assert lose(dispatcher, MAX_LOSSES).archs == archs  # the same batch, whole
    singles = [dispatcher.next(worker) for worker in "abcd"]
    assert [batch.archs for batch in singles] == [(arch,) for arch in archs]
    killer = singles[2].archs[0]
    for worker in "abd":
        dispatcher.done(worker, run.measure(dispatcher.next(worker)))
    dispatcher.lost("c", "it died")
    for _ in range(MAX_LOSSES):
        assert lose(dispatcher, 1, "its worker was killed").archs == (killer,)
    failed = [row for row in run.written if row.status == "failed"]
    assert [(row.arch_id, row.error, row.readings) for row in failed] == [(run.id(killer), "its worker was killed", {})]
    assert {row.arch_id for row in run.written} == {run.id(arch) for arch in archs}
    assert (killer, None) in run.sampler.told
    assert killer not in dispatcher.next("e").archs
    assert dispatcher.stop_reason is None


def test_the_others_of_a_lost_batch_are_read_even_where_the_killer_comes_first(task):
    """A run in which one architecture kills whoever reads it ends, with one failed row."""
    run = make_run(task, task.space.size(), batch_size=6)
    killer = run.id(list(task.space.enumerate())[5])
    names = itertools.count()
    worker, deaths = "w", 0
    while not run.dispatcher.over:
        batch = run.dispatcher.next(worker)
        if killer in map(run.id, batch.archs):
            run.dispatcher.lost(worker, "its worker died again and again")
            worker, deaths = f"w{next(names)}", deaths + 1
        else:
            run.dispatcher.done(worker, run.measure(batch))
    assert [row.arch_id for row in run.written if row.status == "failed"] == [killer]
    assert len(run.ids) == len(set(run.ids)) == task.space.size()
    assert deaths in (MAX_LOSSES + 1, 2 * (MAX_LOSSES + 1))  # where it was alone in its batch, and where it was not


def test_a_lost_part_of_the_sample_stays_a_part_of_it(task):
    sample = list(itertools.islice(task.space.enumerate(), 4))
    run = make_run(task, 3, sample, batch_size=2)
    for _ in range(MAX_LOSSES + 1):
        assert lose(run.dispatcher, 1).calibrates
    singles = [run.dispatcher.next(worker) for worker in "ab"]
    assert all(batch.calibrates for batch in singles)
    run.dispatcher.done("a", run.measure(singles[0]))
    run.dispatcher.lost("b", "it died")
    for _ in range(MAX_LOSSES):
        run.dispatcher.lost("b", "it died") if run.dispatcher.next("b").archs == singles[1].archs else None
    run.read_all("c")
    (rows,) = run.calibrated
    assert [row.arch_id for row in rows] == [run.id(arch) for arch in sample]
    assert [row.status for row in rows] == ["ok", "failed", "ok", "ok"]
    assert len(run.ids) == 3  # none of the sample among them
    assert run.dispatcher.over


def test_a_worker_that_is_lost_while_it_waits_loses_nothing(task):
    run = make_run(task, 1)
    batch = run.dispatcher.next("a")
    assert run.dispatcher.next("b") is None
    run.dispatcher.lost("b", "it died")
    assert run.dispatcher.num_workers == 1
    assert run.dispatcher.num_failed_starts == 0
    assert not run.dispatcher.has_work
    run.dispatcher.done("a", run.measure(batch))
    assert run.dispatcher.over


def test_what_a_dead_worker_said_last_counts_for_nothing(run, dispatcher):
    batch = dispatcher.next("a")
    dispatcher.lost("a", "it died")
    dispatcher.done("a", run.measure(batch))
    assert run.written == []
    assert dispatcher.next("b").archs == batch.archs


def test_a_replacement_is_not_given_the_dead_ones_pace(medium_task):
    run = make_run(medium_task, 1000)
    run.read("a", 0.001)
    assert len(run.dispatcher.next("a").archs) == 64
    run.dispatcher.lost("a", "it died")
    run.dispatcher.next("b")
    run.dispatcher.next("c")
    assert len(run.dispatcher.next("c").archs) == 1


def test_workers_that_cannot_be_started_end_a_run_in_which_none_is_at_work(dispatcher):
    for number in range(MAX_FAILED_STARTS):
        assert not dispatcher.over
        dispatcher.lost(f"w{number}", f"no room, {number}")
    assert dispatcher.over
    assert dispatcher.stop_reason == "3 workers in a row could not be started, the last one: no room, 2"


def test_workers_that_cannot_be_started_do_not_end_a_run_in_which_another_is_at_work(run, dispatcher):
    batch = dispatcher.next("a")
    for number in range(5 * MAX_FAILED_STARTS):
        dispatcher.lost(f"w{number}", "no room")
    assert not dispatcher.over
    dispatcher.done("a", run.measure(batch))
    assert len(run.ids) == 4
    assert not dispatcher.over


def test_once_the_last_worker_is_gone_the_next_failed_start_ends_the_run(dispatcher):
    dispatcher.next("a")
    for number in range(MAX_FAILED_STARTS):
        dispatcher.lost(f"w{number}", "no room")
    dispatcher.lost("a", "it died")
    assert not dispatcher.over  # that was no failed start
    dispatcher.lost("z", "no room")
    assert dispatcher.over
    assert "4 workers in a row could not be started" in dispatcher.stop_reason


def test_a_worker_that_starts_forgives_those_that_did_not(dispatcher):
    for _ in range(3):
        for number in range(MAX_FAILED_STARTS - 1):
            dispatcher.lost(f"w{number}", "no room")
        dispatcher.next("a")
        dispatcher.lost("a", "it died")
    assert not dispatcher.over
    assert dispatcher.stop_reason is None


def test_the_wait_before_another_start_grows_and_resets(dispatcher):
    waits = [dispatcher.backoff_s()]
    dispatcher.next("a")
    for number in range(10):
        dispatcher.lost(f"w{number}", "no room")
        waits.append(dispatcher.backoff_s())
    assert waits == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[MAX_BACKOFF_S] * 5]
    dispatcher.lost("a", "it died")
    assert dispatcher.backoff_s() == MAX_BACKOFF_S  # a death at work says nothing of starts
    dispatcher.next("b")
    assert dispatcher.backoff_s() == 0.0


def test_the_wait_stays_finite_however_many_starts_fail(dispatcher):
    dispatcher.next("a")
    for number in range(5000):
        dispatcher.lost(f"w{number}", "no room")
    assert dispatcher.backoff_s() == MAX_BACKOFF_S


def test_what_an_earlier_run_could_not_read_comes_first_and_one_by_one(task):
    run = make_run(task, 3)
    again = [run.sampler.ask() for _ in range(2)]
    dispatcher = Dispatcher(task, run.recorder, 3, 4, again=again)
    run.dispatcher = dispatcher
    batches = run.read_all()
    assert [batch.archs for batch in batches[:2]] == [(arch,) for arch in again]
    assert len(run.ids) == len(set(run.ids)) == 5
