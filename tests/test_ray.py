"""The main job on a real Ray cluster: real Tune trials, real Train jobs, kills and resumes."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tvt_ray
from tests.conftest import REPO, SMALL_SPACES, TEACHER, set_flags
from tests.prometheus import watch
from tvt_ray import pipeline
from tvt_ray.cluster import alive_nodes
from tvt_ray.config import RunConfig, load_config
from tvt_ray.proxies import PROXIES
from tvt_ray.runs import RunFolder
from tvt_ray.search import roster, slots, tune
from tvt_ray.search.algorithms import Sampler, build_algorithm
from tvt_ray.search.scorer import Scorer
from tvt_ray.search.store import RowStore, RowWriter

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TWO_SLOTS = slots.Slots(2, 0, 2)


def variant(config, **sections):
    """The session's small run with some settings changed, section by section."""
    return load_config(None, [config.model_dump(mode="json"), sections])


def components(folder):
    return {row.arch_id: dict(row.components) for row in RunFolder(folder).store().read()}


@pytest.fixture(scope="module")
def finished(cluster, config, teacher, tmp_path_factory):
    """A finished run of 24 architectures."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = pipeline.search(variant(config, search={"gpus_per_trial": 0, "archs_per_trial": 3}), folder)
    return folder, result


def test_a_search_scores_what_was_asked_for(finished, config):
    folder, result = finished
    rows = RunFolder(folder).store().read()
    assert result.num_requested == result.num_scored == result.num_unique == len(rows) == 24
    assert result.num_failed == 0
    assert result.best[0]["score"] == max(row.score for row in rows)
    assert [entry["score"] for entry in result.best] == sorted((r.score for r in rows), reverse=True)[:10]
    stored = json.loads((folder / "top.json").read_text())
    assert stored["best"] == result.best
    assert stored["pareto"] == result.pareto
    for name in ("config.yaml", "calibration.json", "report.html", "report.png"):
        assert (folder / name).stat().st_size > 0
    assert not (folder / ".tune").exists()
    assert RunFolder(folder).config().space == config.space


def test_trials_run_on_all_slots(finished):
    _, result = finished
    assert result.num_workers == result.num_pids == 4


def test_workers_score_as_this_process_does(finished, config, digits, teacher):
    scorer = Scorer(pipeline.make_task(config, digits, teacher))
    found = components(finished[0])
    for row in RunFolder(finished[0]).store().read()[:5]:
        assert dict(scorer.score(config.space.from_json(row.arch)).components) == found[row.arch_id]


def test_same_seed_same_rows_whatever_the_workers_and_batches(finished, cluster, config, tmp_path):
    result = pipeline.search(variant(config, search={"archs_per_trial": 5, "num_workers": 1}), tmp_path / "second")
    assert result.num_pids == 1
    assert components(tmp_path / "second") == components(finished[0])
    scores = [{r.arch_id: r.score for r in RunFolder(f).store().read()} for f in (tmp_path / "second", finished[0])]
    assert scores[0] == scores[1]


def test_a_share_of_a_gpu_runs_four_trials_at_a_time(cluster, config, teacher, tmp_path):
    """The GPU exists in name only, so its actors compute on the CPU; what is tested is the packing."""
    assert slots.find_slots(None) == slots.find_slots(0.25) == slots.Slots(4, 0.25)
    assert slots.find_slots(0.4) == slots.Slots(2, 0.4)
    assert slots.find_slots(0) == slots.Slots(4, 0)
    settings = {"num_samples": 8, "archs_per_trial": 1, "gpus_per_trial": 0.25}
    result = pipeline.search(variant(config, search=settings), tmp_path / "gpu")
    assert result.num_scored == 8
    assert result.num_pids == 4


@pytest.mark.parametrize("searcher", ["exhaustive", "evolution", "tpe", "nsga2"])
def test_every_searcher_drives_tune(searcher, cluster, config, teacher, tmp_path):
    settings = {"searcher": searcher, "num_samples": 20, "archs_per_trial": 2, "population": 6, "num_workers": 1}
    if searcher == "nsga2":
        settings["objectives"] = "score_flops"
    result = pipeline.search(variant(config, search=settings), tmp_path / "run")
    assert result.num_scored == result.num_unique == 20
    assert result.pareto


def test_a_space_smaller_than_the_request_is_scored_whole(cluster, config, teacher, tmp_path):
    space = SMALL_SPACES["pit"].model_dump(mode="json")
    whole = {**config.model_dump(mode="json"), "space": space}
    small = load_config(None, [whole, {"search": {"num_samples": 500, "num_workers": 1}}])
    result = pipeline.search(small, tmp_path / "run")
    assert result.num_scored == result.num_unique == SMALL_SPACES["pit"].size()
    assert "whole space" in result.note


@pytest.fixture
def run_trials(finished, config, digits, teacher, tmp_path):
    """Scores with a task and a trainable of the test's own; gives the rows and the recorder."""
    import ray

    def run(total, batch, proxies=None, trainable=tune.ScoringTrial, max_failure_share=1.0, places=TWO_SLOTS):
        task = pipeline.make_task(config, digits, teacher)
        task = dataclasses.replace(task, proxies=proxies or task.proxies)
        sampler = Sampler(build_algorithm(config.search, task.space, 0), task.space, config.budget, 10, 0)
        calibration = pipeline.Calibration.load(finished[0] / "calibration.json")
        store = RowStore(tmp_path / "rows")
        with (
            pytest.MonkeyPatch.context() as patch,
            tune.Meter("scoring", total, "architectures") as meter,
            RowWriter(store) as writer,
        ):
            patch.setattr(tune, "ScoringTrial", trainable)
            patch.setattr(tune, "MAX_ACTOR_FAILURES", 1)
            recorder = tune.RowRecorder(
                writer, calibration, "tvt", sampler, 1, meter, max_failure_share=max_failure_share
            )
            tune.run_trials(slots.Job(task, ray.put(task), places), recorder, total, batch)
        return store.read(), recorder

    return run


def test_an_architecture_that_fails_is_a_row(run_trials):
    """A proxy that no worker knows raises in every one of them, and the run goes on to its end."""
    rows, recorder = run_trials(6, 2, proxies=("t", "no-such-proxy"))
    assert len(rows) == 6
    assert {row.status for row in rows} == {"failed"}
    assert all("no-such-proxy" in row.error for row in rows)
    assert "no-such-proxy" not in PROXIES
    assert recorder.stop_reason is None


def test_too_many_failures_stop_the_run(run_trials):
    rows, recorder = run_trials(400, 5, proxies=("no-such-proxy",), max_failure_share=0.5)
    assert tune.MIN_ROWS_TO_JUDGE <= len(rows) < 400
    assert re.match(r"\d+ of \d+ architectures failed, more than search.max_failure_share 0.5 ", recorder.stop_reason)
    assert "KeyError: 'no-such-proxy'" in recorder.stop_reason


def test_dead_workers_are_replaced_and_only_who_kills_them_fails(run_trials, config, tmp_path):
    """One worker dies once, which is repaired; and one architecture kills each worker that it meets.

    The latter's batch dies with it as often as workers are restarted, and is then tried one by one.
    """
    sampler = Sampler(build_algorithm(config.search, config.space, 0), config.space, config.budget, 10, 0)
    deadly, unlucky = [sampler.ask() for _ in range(10)][::9]
    marker = tmp_path / "died"

    class Mortal(tune.ScoringTrial):
        def _score(self, arch):
            if arch == unlucky and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if arch == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._score(arch)

    rows, _ = run_trials(12, 3, trainable=Mortal)
    failed = [row for row in rows if row.status == "failed"]
    assert marker.exists()
    assert len(rows) == 12
    assert [row.arch_id for row in failed] == [config.space.arch_id(deadly)]
    assert failed[0].error.startswith("its worker died more often than it is restarted")


def test_a_run_spreads_over_what_joins_its_cluster(run_trials):
    """It knows of one slot when it starts, and the cluster holds four by then."""

    class Slow(tune.ScoringTrial):
        def _score(self, arch):
            time.sleep(0.1)
            return super()._score(arch)

    rows, recorder = run_trials(90, 1, trainable=Slow, places=slots.Slots(1, 0))
    assert len(rows) == 90
    assert len(recorder.workers) == 4


def test_who_is_waited_for(cluster, monkeypatch):
    """Room on the cluster is; once, where nobody fills it; and again when a worker has died."""
    monkeypatch.setattr(roster, "LOOK_INTERVAL_S", 0.0)
    monkeypatch.setattr(roster, "HOLD_TIMEOUT_S", 0.3)
    there = roster.Attendance("test-who-is-waited-for", slots.Slots(1, 0))
    (node,) = (alive["NodeID"] for alive in alive_nodes())
    known = roster.Roster(there)
    there.enter(f"{node}/1", "a")
    assert known.hold(many_left=True) == 1  # whatever the cluster holds, before the first result
    known.begin()
    assert known.hold(many_left=False) == 1
    assert known.hold(many_left=True) == known.hold(many_left=True) == 2
    assert known.room == 4
    assert there.wait(at_most=1) < 0.3 <= there.wait()
    for process in "234":
        there.enter(f"{node}/{process}", process)
    there.enter(f"{node}/1", "b")  # its next trial
    assert there.count() == 4
    assert there.wait() < 0.3
    assert known.hold(many_left=True) == 2
    known.note_death("b")
    known.note_death("c")  # whose worker had not begun it
    assert there.count() == 3
    assert known.hold(many_left=True) == 3
    there.enter("gone/5", "e")
    assert there.count() == 3  # its node is not alive
    there.clear()
    assert there.count() == 0


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads the machine's memory from /proc")
def test_what_the_memory_monitor_kills_is_a_row(teacher, tmp_path):
    """On a Ray of its own, whose monitor is told that the node has little memory."""
    command = [sys.executable, "tests/memory_kill.py", str(tmp_path / "run")]
    done = subprocess.run(command, check=False, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    reason = "its worker was killed by Ray's memory monitor: the node was running low on memory"
    assert done.stdout.splitlines()[-1] == f"5 [True] {reason}"
    assert "Traceback" not in done.stderr


def test_a_run_folder_with_another_run_is_refused(finished, config):
    folder = finished[0]
    with pytest.raises(tvt_ray.errors.UsageError, match="already holds a run"):
        pipeline.search(config, folder)
    with pytest.raises(tvt_ray.errors.UsageError, match="seed is 5 here and 0 there"):
        pipeline.search(variant(config, seed=5), folder, resume=True)


def test_resuming_a_finished_run_scores_only_what_is_new(finished, cluster, config, tmp_path):
    folder, _ = finished
    before = components(folder)
    more = variant(config, search={"num_samples": 30, "num_workers": 1})
    result = pipeline.search(more, folder, resume=True)
    after = components(folder)
    assert result.num_scored == len(after) == 30
    assert {k: after[k] for k in before} == before
    again = pipeline.search(more, folder, resume=True)
    assert again.num_scored == 30
    assert again.archs_per_s == 0


def test_reranking_needs_no_scoring(finished):
    by_size = pipeline.rerank(finished[0], "params", 3)
    assert [e["score"] for e in by_size["best"]] == sorted((e["params"] for e in by_size["best"]), reverse=True)
    assert pipeline.rerank(finished[0], "tvt", 1)["score"] == "tvt"
    assert pipeline.rerank(finished[0], None, 3)["best"] == finished[1].best[:3]
    with pytest.raises(tvt_ray.errors.UsageError, match="score 'snip' reads 'snip', which was not read here"):
        pipeline.rerank(finished[0], "snip", 1)


def run_search(folder, *flags):
    command = [sys.executable, "search.py", "--run-dir", str(folder), "--json", *flags]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SMALLER = [
    *set_flags({**TEACHER, "score": {"calibration_samples": 8}, "probe": {"num_images": 10}}),
    *("--set", "search.num_workers=2", "--set", "search.gpus_per_trial=0"),
]


def test_killed_and_resumed_it_ends_with_exactly_what_was_asked_for(cluster, config, teacher, digits, tmp_path):
    """SIGKILL of the driver in mid-search, twice; then the same set as a search that nobody disturbed."""
    folder, wanted = tmp_path / "run", 300
    flags = [*SMALLER, "--num-samples", str(wanted), "--archs-per-trial", "4", "--ray-address", cluster]
    seen: dict[str, dict[str, float]] = {}
    for attempt in range(2):
        process = run_search(folder, *(flags if attempt == 0 else ["--resume", "--ray-address", cluster]))
        deadline = time.monotonic() + 120
        while len(list(folder.glob("rows/*.parquet"))) < 12 * (attempt + 1) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.communicate()
        rows = components(folder)
        assert seen.items() <= rows.items()  # nothing that was on disk is lost or changed
        seen = rows
        assert 0 < len(seen) < wanted
    process = run_search(folder, "--resume", "--ray-address", cluster)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["num_scored"] == wanted
    final = components(folder)
    assert len(final) == wanted
    assert seen.items() <= final.items()
    undisturbed = Sampler(build_algorithm(RunConfig().search, config.space, 0), config.space, config.budget, 10, 0)
    assert final.keys() == {config.space.arch_id(undisturbed.ask()) for _ in range(wanted)}


def test_ctrl_c_says_how_to_go_on(cluster, teacher, tmp_path):
    folder = tmp_path / "run"
    process = run_search(folder, *SMALLER, "--num-samples", "5000", "--archs-per-trial", "4", "--ray-address", cluster)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("rows/*.parquet"))) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert f"python search.py --run-dir {folder} --resume" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert components(folder)


def test_search_then_distil_gives_students_that_load(cluster, teacher, tmp_path, digits):
    """search.py --distill-top-k 2 as a user types it, on two Train jobs; accuracy after loading is the one reported."""
    folder = tmp_path / "run"
    flags = ["--num-samples", "16", "--distill-top-k", "2", "--epochs", "6", "--set", "distill.gpus_per_worker=0"]
    flags += ["--set", "space.embed_dim=[96]", "--set", "space.depth=[3, 4]", "--set", "distill.batch_size=16"]
    process = run_search(folder, *SMALLER, *flags, "--ray-address", cluster)
    out, err = process.communicate(timeout=290)
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["num_scored"] == 16
    assert [s["arch_id"] for s in result["students"]] == [e["arch_id"] for e in result["best"][:2]]
    for entry in result["students"]:
        assert entry["epochs"] == 6
        assert entry["test_acc"] > 70  # chance is 10; how high so short a training gets differs between processors
        assert entry["teacher_test_acc"] > 80
        student = tvt_ray.load_student(entry["path"])
        images = torch.stack([student.transform(digits.test[i][0]) for i in range(len(digits.test))])
        with torch.no_grad():
            hits = student(images).argmax(1).numpy() == digits.test.labels
        assert 100 * hits.mean() == pytest.approx(entry["test_acc"])
        assert len((Path(entry["path"]) / "metrics.jsonl").read_text().splitlines()) == 6


def test_distilling_on_two_workers_and_going_on_after_a_crash(finished, cluster, config, tmp_path, monkeypatch):
    """Two gloo workers; the first attempt dies after an epoch, the second goes on from its checkpoint."""
    import ray

    from tvt_ray.distill import train
    from tvt_ray.errors import RunError, UsageError

    folder = finished[0]
    settings = {"num_workers": 2, "epochs": 3, "max_failures": 0, "cpus_per_worker": 1}
    two = variant(config, distill=settings)
    arch_id = min(RunFolder(folder).store().read(), key=lambda row: row.flops).arch_id

    def dies_after_an_epoch(config):
        from tvt_ray.distill.loop import Distiller

        original = Distiller.run_epoch

        def run_epoch(self):
            if self.epoch == 1:
                raise ValueError("power cut")
            return original(self)

        Distiller.run_epoch = run_epoch
        return train_worker(config)

    with pytest.raises(UsageError, match="num_workers 9 needs more than the cluster has"):
        pipeline.distill(variant(two, distill={"num_workers": 9}), folder, arch_id=arch_id)
    train_worker = train._train_worker
    monkeypatch.setattr(train, "_train_worker", dies_after_an_epoch)
    with pytest.raises(RunError, match=r"power cut.*--arch-id .* --resume"):
        pipeline.distill(two, folder, arch_id=arch_id)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="unfinished training"):
        pipeline.distill(two, folder, arch_id=arch_id)
    with pytest.raises(UsageError, match="other settings"):
        pipeline.distill(variant(two, distill={"epochs": 9}), folder, arch_id=arch_id, resume=True)
    with watch("ray_tvt_val_accuracy_percent") as seen:
        (student,) = pipeline.distill(two, folder, arch_id=arch_id, resume=True)
    history = [json.loads(line) for line in (Path(student["path"]) / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history[0]["loss"] > history[-1]["loss"]
    assert seen & {(arch_id, line["val_acc"]) for line in history[1:]}
    states = ray.get_actor("train_v2_state_actor", namespace="_train_state_actor")  # what the dashboard asks for runs
    runs = ray.get(states.get_train_runs.remote()).values()
    assert [run.status.name for run in runs if run.run_settings.train_loop_config["arch_id"] == arch_id]
    (kept,) = pipeline.distill(two, folder, arch_id=arch_id, resume=True)
    assert kept == student
