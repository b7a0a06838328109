"""Searches on a real Ray cluster: what comes out, whoever computes it."""

import dataclasses
import json
import shutil

import pytest

from tests.cluster.conftest import readings, variant
from tests.conftest import SMALL_SPACES, one_by_day
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import make_task
from tvt_ray.runs.run import Run
from tvt_ray.scoring.reader import Reader
from tvt_ray.verbs.report import report
from tvt_ray.verbs.search import search

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_search_scores_what_was_asked_for(finished, config):
    folder, summary = finished
    rows, ranking = RunFolder(folder).rows().read(), Run(folder).ranking()
    assert summary.num_requested == summary.num_scored == summary.num_unique == len(rows) == 24
    assert summary.num_failed == 0
    assert summary.num_shapes == len({row.shape for row in rows})
    assert [(each.arch_id, each.score) for each in summary.best] == [
        (each.row.arch_id, each.score) for each in ranking.entries[:10]
    ]
    assert summary.best[0].score == max(each.score for each in ranking.scored)
    for name in ("config.yaml", "data.json", "calibration.json", "report.html", "report.png"):
        assert (folder / name).stat().st_size > 0
    assert RunFolder(folder).config().space == config.space
    assert {row.searcher for row in rows} == {"random"}
    assert summary.searchers == {"random": 24}
    assert summary.readings == ("attention_similarity", "l2_norm", "rank_sum", "log_norm")
    assert summary.seconds.keys() == {"data", "teacher", "ray", "scoring", "report"}
    assert sum(summary.seconds.values()) == pytest.approx(summary.wall_s, rel=0.2, abs=1)


def test_terminal_top_list_and_ranking_hold_the_same_architectures_one_of_each_shape(finished):
    folder, summary = finished
    stored = json.loads((folder / "top.json").read_text())
    assert [each["arch_id"] for each in stored["best"]] == [each.arch_id for each in summary.best]
    assert [each["arch_id"] for each in stored["pareto"]] == [each.arch_id for each in summary.pareto]
    shapes = {row.arch_id: row.shape for row in RunFolder(folder).rows().read()}
    assert len({shapes[each.arch_id] for each in summary.best}) == len(summary.best)


def test_who_scored_is_counted(finished):
    """As many as came in time: so short a run waits for nobody."""
    _, summary = finished
    assert 1 <= summary.num_workers == summary.num_pids <= 4
    assert summary.num_nodes == 1


def test_workers_read_as_this_process_does(finished, config, digits, teacher):
    reader, found = Reader(make_task(config, digits, teacher)), readings(finished[0])
    for row in RunFolder(finished[0]).rows().read()[:5]:
        assert dict(reader.read(config.space.from_json(row.arch)).readings) == found[row.arch_id]


def test_same_seed_same_rows_whatever_the_workers_and_batches(finished, cluster, config, tmp_path):
    settings = {"archs_per_trial": 5, "scoring_workers": 1}
    summary = search(variant(config, cluster=settings), run_dir=tmp_path / "second").summary
    assert summary.num_pids == 1
    assert readings(tmp_path / "second") == readings(finished[0])
    scores = [{e.row.arch_id: e.score for e in Run(f).ranking().scored} for f in (tmp_path / "second", finished[0])]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("searcher", one_by_day(["evolution", "exhaustive", "tpe", "nsga2"]))
def test_every_searcher_drives_tune(searcher, cluster, config, teacher, tmp_path):
    asked = {"searcher": searcher, "num_samples": 20, "population": 6}
    if searcher == "nsga2":
        asked["objectives"] = "score_flops"
    settings = {"archs_per_trial": 2, "scoring_workers": 1}
    summary = search(variant(config, search=asked, cluster=settings), run_dir=tmp_path / "run").summary
    assert summary.num_scored == summary.num_unique == 20
    assert summary.searchers == {searcher: 20}
    assert summary.pareto


def test_a_space_smaller_than_the_request_is_read_whole(cluster, config, teacher, tmp_path):
    space = SMALL_SPACES["pit"].model_dump(mode="json")
    whole = {**config.model_dump(mode="json"), "space": space, "cluster": {"scoring_workers": 1}}
    summary = search(load_config(None, [whole, {"search": {"num_samples": 500}}]), run_dir=tmp_path / "run").summary
    assert summary.num_scored == summary.num_unique == SMALL_SPACES["pit"].size()
    assert "whole space" in summary.note


def test_what_the_score_does_not_read_is_not_made(cluster, config, tmp_path, monkeypatch):
    """`readings: score` with a score of weights alone: no teacher is trained and nothing looks at an image."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    settings = {"score": {"readings": "score"}, "search": {"num_samples": 6}, "cluster": {"scoring_workers": 1}}
    summary = search(variant(config, **settings), run_dir=tmp_path / "run").summary
    assert summary.readings == ("rank_sum", "log_norm")
    assert all(set(found) == {"rank_sum", "log_norm"} for found in readings(tmp_path / "run").values())
    assert not (tmp_path / "empty").exists()
    assert not list((tmp_path / "run").glob("*.safetensors"))
    with pytest.raises(UsageError, match="score 'tvt' is made of 'attention_similarity', which this run did not read"):
        Run(tmp_path / "run").ranking("tvt")


def test_a_run_folder_is_not_written_over(finished, config):
    folder, _ = finished
    with pytest.raises(UsageError, match="already holds a run"):
        search(config, run_dir=folder)
    with pytest.raises(UsageError, match="seed is 5 here and 0 there"):
        search(variant(config, seed=5), run_dir=folder, resume=True)


def test_resuming_a_finished_run_reads_only_what_is_new(finished, cluster, config, tmp_path):
    folder, one = shutil.copytree(finished[0], tmp_path / "run"), {"scoring_workers": 1}
    before = readings(folder)
    more = variant(config, search={"num_samples": 30, "searcher": "evolution"}, cluster=one)
    summary = search(more, run_dir=folder, resume=True).summary
    after = readings(folder)
    assert summary.num_scored == len(after) == 30
    assert summary.searchers == {"random": 24, "evolution": 6}  # who proposed what is kept
    assert {k: after[k] for k in before} == before
    again = search(more, run_dir=folder, resume=True).summary
    assert again.num_scored == 30
    assert again.archs_per_s == 0


def test_what_failed_by_its_device_is_read_again(finished, cluster, config, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    before, rows = readings(folder), RunFolder(folder).rows().read()
    shutil.rmtree(folder / "rows")
    failed = dataclasses.replace(rows[3], status="failed", error="RuntimeError: CUDA out of memory", readings={})
    RunFolder(folder).rows().append([*rows[:3], failed, *rows[4:]])
    summary = search(variant(config, cluster={"scoring_workers": 1}), run_dir=folder, resume=True).summary
    assert (summary.num_scored, summary.num_failed) == (24, 0)
    assert readings(folder) == before
    assert {row.arch_id for row in RunFolder(folder).rows().read()} == {row.arch_id for row in rows}


def test_a_run_can_be_resumed_by_another_score_without_reading_again(finished, cluster, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    stored = RunFolder(folder).config().with_(score={"name": "tvt"})
    summary = search(stored, run_dir=folder, resume=True).summary
    assert (summary.score, summary.archs_per_s) == ("tvt", 0)
    assert RunFolder(folder).config().score.name == "tvt"
    assert summary.best[0].arch_id == Run(folder).ranking("tvt").entries[0].row.arch_id


def test_another_score_needs_no_reading_and_becomes_the_runs(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    ranking = report(folder, score="params")
    assert [each.score for each in ranking.entries] == sorted((e.row.params for e in ranking.entries), reverse=True)
    told = json.loads((folder / "top.json").read_text())["score"]
    assert RunFolder(folder).config().score.name == told == ranking.by == "params"
    assert "score</dt><dd>params" in (folder / "report.html").read_text()
    assert report(folder).by == "params"
    again = report(folder, score="capacity")
    assert [each.row.arch_id for each in again.top(10)] == [each.arch_id for each in finished[1].best]
    with pytest.raises(UsageError, match="score 'snip' is made of 'snip', which this run did not read; it read params"):
        report(folder, score="snip")


def test_the_public_verbs_give_what_one_reads(finished):
    """The run is of `tvt_ray.search`."""
    run = Run.load(str(finished[0]))
    assert finished[1].num_scored == len(run.rows) == 24
    assert list(run.rows["arch_id"]) == [row.arch_id for row in run.folder.rows().read()]
    small = run.ranking(by="tvt", k=3, max_params=600_000)
    assert (small.by, len(small.entries)) == ("tvt", 3)
    assert all(each.row.params <= 600_000 for each in small.entries)
    assert run.students == []
    assert run.measurements.empty
