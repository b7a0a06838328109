"""Cohorts as real Ray actors, and refine on top of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.ground_truth import sample_archs
from tests.cluster.conftest import RUNGS, variant, wait_until
from tests.cluster.processes import workers_of
from tests.conftest import REPO
from tests.distillation.conftest import SETTINGS, SPACE, few, same
from tvt_ray.cluster import cohorts
from tvt_ray.cluster.board import STATE_FILE
from tvt_ray.cluster.cohorts import CohortPool, state_name
from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import Meter
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import Rounds
from tvt_ray.runs.run import Run
from tvt_ray.training.learner import WorkerContext, from_bytes
from tvt_ray.verbs.distill import distill
from tvt_ray.verbs.refine import refine
from tvt_ray.vits.budget import format_count

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CPU = torch.device("cpu")


@pytest.fixture
def tasks():
    settings = SETTINGS.model_copy(update={"epochs": 6})
    return [DistillTask(SPACE, arch, 10, settings) for arch in sample_archs(SPACE, 3, seed=0)]


@pytest.fixture
def inputs(digits, teacher):
    return DistillInputs(few(digits.train, 160), few(digits.val, 40), few(digits.test, 40), teacher)


@pytest.mark.night
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_a_cohort_whose_worker_dies_ends_as_an_undisturbed_one(cluster, tasks, inputs, tmp_path):
    plain = Cohort(tasks, inputs, WorkerContext(CPU))
    while not plain.done:
        plain.run_epoch()
    heard, settings = {}, ClusterSettings(loader_workers=1)  # so one thread computes, as here: else as measured
    with CohortPool(inputs, tmp_path, settings, 3, 8) as pool, Meter("refining", 18, "epochs") as meter:

        def hear(task, epoch):
            if len(heard) == 3:  # in mid-training
                for pid in workers_of(cluster, "ray::CohortWorker"):
                    os.kill(pid, signal.SIGKILL)
            heard.setdefault((task.arch_id, int(epoch["epoch"])), epoch["val_acc"])

        pool.train(tasks[:1], 2, meter, hear)
        assert heard.keys() == {(tasks[0].arch_id, 1), (tasks[0].arch_id, 2)}
        pool.train(tasks, 6, meter, hear)
    for arch_id, learner in plain.learners.items():
        assert [heard[arch_id, epoch] for epoch in range(1, 7)] == [each["val_acc"] for each in learner.history]
        state = from_bytes((tmp_path / state_name(learner.task) / STATE_FILE).read_bytes())
        assert same(state["guided"], learner.guided.state_dict())


@pytest.mark.night
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_a_worker_that_dies_too_often_fails_its_cohort_and_no_other(cluster, tasks, inputs, tmp_path):
    settings, heard = ClusterSettings(max_failures=0), set()
    killed = []

    def hear(task, epoch):
        heard.add((task.arch_id, epoch["epoch"]))
        if not killed:
            killed.append(workers_of(cluster, "ray::CohortWorker")[0])
            os.kill(killed[0], signal.SIGKILL)

    with CohortPool(inputs, tmp_path, settings, 3, 8) as pool, Meter("refining", 18, "epochs") as meter:
        with pytest.raises(
            RunError, match=r"a cohort failed; autoformer-.*: its worker died, and was started again 0 times"
        ):
            pool.train(tasks, 6, meter, hear)
        assert len(pool.idle) == 1  # of two on half of a GPU each
        pool.train(tasks, 6, meter, hear)
    assert {(task.arch_id, epoch) for task in tasks for epoch in range(1, 7)} <= heard


def test_a_cohort_that_does_not_fit_into_memory_goes_on_in_halves(
    cluster, tasks, inputs, tmp_path, monkeypatch, capsys
):
    """Three students where one fits: they end as an undisturbed cohort does. A single one says why."""
    import ray

    class Small(cohorts.CohortWorker.__ray_metadata__.modified_class):
        def train(self, shared, board, tasks, epochs):
            if len(tasks) > 1 or (tmp_path / "full").exists():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().train(shared, board, tasks, epochs)

    monkeypatch.setattr(cohorts, "CohortWorker", ray.remote(Small))
    plain, heard = Cohort(tasks, inputs, WorkerContext(CPU)), {}
    for _ in range(2):
        plain.run_epoch()
    settings = ClusterSettings(loader_workers=1)

    def hear(task, epoch):
        heard[task.arch_id, int(epoch["epoch"])] = epoch["val_acc"]

    with CohortPool(inputs, tmp_path, settings, 1, 8) as pool, Meter("refining", 18, "epochs") as meter:
        pool.train(tasks, 2, meter, hear)
        err = capsys.readouterr().err
        for count in (3, 2):
            assert f"a cohort of {count} students ran out of memory, and goes on as two" in err
        for arch_id, learner in plain.learners.items():
            assert [heard[arch_id, epoch] for epoch in (1, 2)] == [each["val_acc"] for each in learner.history]
        (tmp_path / "full").touch()
        with pytest.raises(RunError, match=r"a cohort failed; autoformer-.*CUDA out of memory"):
            pool.train(tasks[:1], 6, meter, hear)


@pytest.fixture(scope="module")
def refined(searched, cluster, tmp_path_factory):
    """A copy of that run, refined without any disturbance, its settings and what refine said."""
    folder = tmp_path_factory.mktemp("refined") / "run"
    shutil.copytree(searched[0], folder)
    return folder, searched[1], refine(folder, settings=searched[1])


def measured(folder):
    return {(m.arch_id, m.seed, m.epochs): m.val_acc for m in RunFolder(folder).measurements().read()}


def test_a_few_are_trained_in_rounds_and_all_are_ranked_by_them(refined):
    folder, config, summary = refined
    rounds, found = Rounds.load(RunFolder(folder).rounds_file), measured(folder)
    assert [len(students) for students in rounds.students] == [8, 1]
    assert len(set(rounds.chosen)) == summary.num_students == 9
    assert {(arch_id, 0, 1) for arch_id in rounds.chosen} | {(rounds.chosen[0], 1, 1)} <= found.keys()
    longest = {arch_id for arch_id, seed, epochs in found if epochs == 2}
    assert 3 <= len(longest) <= 5
    assert len(found) == 10 + len(longest) == summary.epochs_spent
    run = Run.load(folder)
    assert run.config.score.name == "measured"
    assert run.config.score.prior == config.score.name
    ranking = run.ranking()
    assert [each.arch_id for each in summary.best] == [each.row.arch_id for each in ranking.top(10)]
    assert ranking.scored[0].score > ranking.scored[-1].score
    top = json.loads((folder / "top.json").read_text())
    assert [each["arch_id"] for each in top["best"]] == [each.arch_id for each in summary.best]
    for each in summary.best:
        low, high = each.interval
        assert low < each.predicted_acc < high
        own = [found[key] for key in found if key[0] == each.arch_id and key[2] == each.epochs]
        assert (each.measured_acc in own) if each.epochs else each.measured_acc is None
    (small,) = [each for each in RunFolder(folder).rows().read() if each.arch_id == summary.smallest.arch_id]
    assert small.params == summary.smallest.params <= ranking.scored[0].row.params
    assert summary.smallest.chance >= 0.8
    assert summary.smallest.predicted_acc >= ranking.scored[0].score - 1.01
    assert summary.lessons
    assert 0.5 <= summary.sure_of_first <= 1
    assert 0 <= summary.more_would_change <= 1
    assert run.ranking(by=config.score.name).by == config.score.name


@pytest.mark.night
def test_killed_in_mid_round_and_resumed_it_measures_the_same_and_ranks_the_same(refined, searched, cluster, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(searched[0], folder)
    command = [sys.executable, "-m", "tvt_ray", "refine", "--run-dir", str(folder), "--ray-address", cluster]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(measured(folder)) >= 3 or process.poll() is not None, 120)
    process.kill()
    process.wait()
    assert 3 <= len(measured(folder)) < len(measured(refined[0])), process.stderr.read()
    again = refine(folder, settings=refined[1], resume=True)
    assert measured(folder) == measured(refined[0])
    assert again.best == refined[2].best


@pytest.mark.night
def test_more_students_are_more_rounds(refined, cluster, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(refined[0], folder)
    settings = variant(refined[1], refine={**RUNGS, "num_students": 11})
    before = Rounds.load(RunFolder(folder).rounds_file)
    summary = refine(folder, settings=settings, resume=True)
    after = Rounds.load(RunFolder(folder).rounds_file)
    assert after.students[:2] == before.students
    assert summary.num_students == 11
    assert measured(refined[0]).items() <= measured(folder).items()


def test_what_was_begun_is_gone_on_with_on_request_alone_and_by_the_same_recipe(refined, cluster):
    folder, settings, summary = refined
    with pytest.raises(UsageError, match="was refined before"):
        refine(folder, settings=settings)
    with pytest.raises(UsageError, match=r"begun with rungs \(1, 2\), here \(1, 3\)"):
        refine(folder, settings=variant(settings, refine={**RUNGS, "rungs": [1, 3]}), resume=True)
    with pytest.raises(UsageError, match="begun with another recipe"):
        refine(folder, settings=variant(settings, distill={"epochs": 3, "lr": 0.1}), resume=True)
    assert refine(folder, settings=settings, resume=True).best == summary.best


def test_distil_goes_on_from_what_refine_trained(refined, cluster, capsys):
    folder, settings, summary = refined
    arch_id = next(arch_id for arch_id, seed, epochs in measured(folder) if epochs == 2)
    before = {m.epochs: m for m in RunFolder(folder).measurements().read() if (m.arch_id, m.seed) == (arch_id, 0)}
    (student,) = distill(folder, settings=settings, arch_id=arch_id)
    assert f"{arch_id} goes on from what refine trained" in capsys.readouterr().err
    history = [json.loads(line) for line in (Path(student.path) / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert [(line["val_acc"], line["seconds"]) for line in history[:2]] == [
        (before[epoch].val_acc, before[epoch].seconds) for epoch in (1, 2)
    ]
    (small,) = distill(folder, settings=settings, within=1.0, resume=True)
    assert small.arch_id == summary.smallest.arch_id
    told = (
        f"distill: {small.arch_id} ({format_count(summary.smallest.params)} parameters) is within 1 point of the best"
    )
    assert told in capsys.readouterr().err
