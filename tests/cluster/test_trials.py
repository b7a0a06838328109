"""Architectures as Tune knows trials: its ResultGrid, its callbacks, and each as a trial of its own."""

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray import tune

from tests.cluster.conftest import readings, variant
from tvt_ray.cluster import ray_patches
from tvt_ray.cluster.scoring import WorkerCallback, WorkerSearcher
from tvt_ray.cluster.slots import Slots
from tvt_ray.cluster.trials import Audience, make_callbacks
from tvt_ray.errors import RunError, UsageError
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run
from tvt_ray.verbs.search import search

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Ears(tune.Callback):
    """All that a callback is told."""

    def __init__(self):
        self.heard = []
        self.results = {}

    def setup(self, stop=None, num_samples=None, total_num_samples=None, **info):
        self.heard.append(("setup", num_samples))

    def on_trial_start(self, iteration, trials, trial, **info):
        assert trial in trials
        self.heard.append(("start", trial.trial_id))

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.heard.append(("result", trial.trial_id))
        self.results[trial.trial_id] = result

    def on_trial_complete(self, iteration, trials, trial, **info):
        assert trial.status == "TERMINATED"
        self.heard.append(("complete", trial.trial_id))

    def on_trial_error(self, iteration, trials, trial, **info):
        self.heard.append(("error", trial.trial_id, str(trial.get_error())))

    def on_experiment_end(self, trials, **info):
        self.heard.append(("end",))


class Raising(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        raise ValueError("no room\nleft")


@pytest.fixture(scope="module")
def each(finished, cluster, config, tmp_path_factory):
    """A run whose trials are architectures, and a callback that heard of it."""
    folder, ears = tmp_path_factory.mktemp("each") / "run", Ears()
    settings = {"trial": "architecture", "gpus_per_trial": 0, "scoring_workers": 2}
    asked = variant(config, cluster=settings, search={"callbacks": ["json", "tensorboard"]})
    search(asked, run_dir=folder, callbacks=[ears])
    return folder, ears


def test_trials_that_are_architectures_read_what_workers_read(each, finished):
    assert readings(each[0]) == readings(finished[0])
    assert {row.searcher for row in RunFolder(each[0]).rows().read()} == {"random"}


def test_a_callback_hears_of_every_architecture_once_as_of_a_trial_with_one_result(each):
    folder, ears = each
    rows = {row.arch_id: row for row in RunFolder(folder).rows().read()}
    assert ears.heard[0] == ("setup", 24)
    assert ears.heard[-1] == ("end",)
    calls = ears.heard[1:-1]
    assert [call[1] for call in calls[::3]] == list(ears.results)
    assert [call[0] for call in calls] == ["start", "result", "complete"] * 24
    assert ears.results.keys() == rows.keys()
    scores = {entry.row.arch_id: entry.score for entry in Run(folder).ranking().scored}
    for arch_id, result in ears.results.items():
        assert result["config"] == rows[arch_id].arch
        assert result["score"] == scores[arch_id]
        assert {name: result[name] for name in rows[arch_id].readings} == rows[arch_id].readings
        assert (result["params"], result["training_iteration"], result["done"]) == (rows[arch_id].params, 1, True)


def test_tunes_loggers_write_a_folder_for_each_architecture_into_the_run(each):
    folder, ears = each
    written = {path.name: path for path in (folder / "tune").iterdir() if path.is_dir()}
    assert written.keys() == ears.results.keys()
    for arch_id, path in written.items():
        assert json.loads((path / "result.json").read_text())["score"] == ears.results[arch_id]["score"]
        assert json.loads((path / "params.json").read_text()) == ears.results[arch_id]["config"]
        assert len(list(path.glob("events.out.tfevents.*"))) == 1


def test_a_run_opens_as_tunes_result_grid(finished):
    run = Run.load(finished[0])
    grid, ranking = run.result_grid(), run.ranking()
    assert (len(grid), grid.num_terminated, grid.num_errors) == (24, 24, 0)
    best = grid.get_best_result()
    assert best.metrics["score"] == ranking.top(1)[0].score
    assert best.config in [entry.row.arch for entry in ranking.scored if entry.score == best.metrics["score"]]
    smallest = grid.get_best_result("params", "min")
    assert smallest.metrics["params"] == min(entry.row.params for entry in ranking.scored)
    frame = grid.get_dataframe().set_index("trial_id")
    assert frame["score"].to_dict() == {entry.row.arch_id: entry.score for entry in ranking.scored}
    assert frame["config/depth"].to_dict() == {entry.row.arch_id: entry.row.arch["depth"] for entry in ranking.scored}
    by_norm = run.result_grid("l2_norm").get_best_result()
    assert by_norm.metrics["l2_norm"] == max(entry.row.readings["l2_norm"] for entry in ranking.scored)
    assert by_norm.metrics_dataframe["l2_norm"].tolist() == [by_norm.metrics["l2_norm"]]


def test_a_failed_row_is_a_trial_with_an_error(finished, cluster, tmp_path):
    row = RunFolder(finished[0]).rows().read()[0]
    failed, ears = replace(row, status="failed", error="RuntimeError: too large", readings={}), Ears()
    with Audience.gathered([ears], tmp_path, 2) as audience:
        audience.tell([row, failed], lambda each: None if each.error else 1.5)
    assert [call[0] for call in ears.heard] == ["setup", "start", "result", "complete", "start", "error", "end"]
    assert ears.heard[5] == ("error", row.arch_id, "RuntimeError: too large")


def test_a_callback_that_raises_stops_the_run_and_keeps_its_rows(finished, cluster, config, tmp_path):
    with pytest.raises(RunError, match=r"a callback of search.callbacks failed: ValueError: no room;?") as error:
        search(variant(config, cluster={"scoring_workers": 1}), run_dir=tmp_path / "run", callbacks=[Raising()])
    assert "go on with: python search.py" in str(error.value)
    assert "\n" not in str(error.value)
    found, before = readings(tmp_path / "run"), readings(finished[0])
    assert 0 < len(found) <= 24
    assert found == {arch_id: before[arch_id] for arch_id in found}


class After(tune.Stopper):
    """Ends all after so many results."""

    def __init__(self, count):
        self.left = count

    def __call__(self, trial_id, result):
        assert result["score"] == result["score"]
        self.left -= 1
        return True  # the trial is over, which says nothing of the others

    def stop_all(self):
        return self.left <= 0


class Broken(tune.Stopper):
    def __call__(self, trial_id, result):
        raise KeyError("accuracy")

    def stop_all(self):
        return False


def test_a_stopper_of_tune_ends_a_search_as_if_no_more_had_been_asked_for(finished, cluster, config, tmp_path):
    folder, asked = tmp_path / "run", variant(config, cluster={"scoring_workers": 1, "archs_per_trial": 2})
    run = search(asked, run_dir=folder, stop=After(5))
    found, before = readings(folder), readings(finished[0])
    assert 5 <= len(found) < 12
    assert found == {arch_id: before[arch_id] for arch_id in found}
    assert run.summary.note == f"{len(found)} of the 24 requested were scored: After ended it"
    assert (folder / "top.json").exists()
    search(None, run_dir=folder, resume=True)
    assert readings(folder) == before


@pytest.mark.night
def test_a_stopper_that_raises_stops_the_run_and_one_of_trials_is_refused(cluster, config, tmp_path):
    with pytest.raises(RunError, match=r"stop failed: KeyError: 'accuracy'"):
        search(variant(config, cluster={"scoring_workers": 1}), run_dir=tmp_path / "run", stop=Broken())
    with pytest.raises(UsageError, match=r"stop must be a ray.tune.Stopper, not function: an architecture has one"):
        search(config, run_dir=tmp_path / "other", stop=lambda trial_id, result: True)
    assert not (tmp_path / "other").exists()


def test_callbacks_and_trials_that_there_are_not_are_one_line(monkeypatch):
    with pytest.raises(UsageError, match=r"config search.callbacks: unknown callback 'wandbb'; choices: json, csv"):
        load_config(None, [{"search": {"callbacks": ["wandbb"]}}])
    with pytest.raises(UsageError, match=r"cluster.trial: Input should be 'worker' or 'architecture' "):
        load_config(None, [{"cluster": {"trial": "arch"}}])
    with pytest.raises(UsageError, match="archs_per_trial is of trials that are workers"):
        load_config(None, [{"cluster": {"trial": "architecture", "archs_per_trial": 8}}])
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r"search.callbacks 'tensorboard' needs a package: .*tensorboardX"):
        make_callbacks(["tensorboard"])


def test_a_worker_whose_node_leaves_is_given_nothing_more(monkeypatch):
    """Asked of the cluster every few seconds."""
    asked = []
    monkeypatch.setattr(ray_patches, "leaving_nodes", lambda now: asked.append(now) or frozenset({"spot"}))
    searcher = WorkerSearcher(SimpleNamespace(has_work=True, over=False), Slots(2, 0))
    assert [searcher.leaves(worker) for worker in ("spot/7", "stays/7", "spot/8")] == [True, False, True]
    assert len(asked) == 1
    given = []
    dispatcher = SimpleNamespace(
        task=SimpleNamespace(space=None),
        num_workers=2,
        rest=lambda worker: given.append(("rest", worker)),
        next=lambda worker: given.append(("next", worker)),
    )
    searcher.dispatcher, sent = dispatcher, []
    actor = SimpleNamespace(take=SimpleNamespace(remote=lambda archs, idle_s: sent.append(archs)))
    for trial_id, node in (("a", "spot"), ("b", "stays")):
        trial = SimpleNamespace(trial_id=trial_id, temporary_state=SimpleNamespace(ray_actor=actor))
        WorkerCallback(searcher).on_trial_result(1, [], trial, {"worker": f"{node}/7"})
    assert given == [("rest", "a"), ("next", "b")]
    assert sent == [None, None]


def test_a_run_without_rows_has_no_results(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(folder / "rows")
    with pytest.raises(UsageError, match="holds no rows yet"):
        Run.load(folder).result_grid()
