"""The metrics of a search as Prometheus reads them, and the Grafana dashboard that draws them."""

import dataclasses
import itertools
import json
import re
import time

import pytest

from tests.cluster.conftest import variant
from tests.cluster.prometheus import EXPORTED, METRICS, read, scrape, values, wait_for
from tests.conftest import REPO, make_row
from tvt_ray.cluster import metrics
from tvt_ray.runs.folder import RunFolder
from tvt_ray.verbs.search import search

DASHBOARD = json.loads((REPO / "dashboards" / "tvt_ray.json").read_text())
PANELS = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def settled():
    """Each metric's value, once two reports have brought no change."""
    before = None
    while before != (now := scrape()):
        before = now
        time.sleep(2.5)
    return {name: sum(sample.value for sample in now if sample.name == name) for name in EXPORTED}


@pytest.mark.night
@pytest.mark.ray
@pytest.mark.slow
def test_a_search_is_counted(cluster, config, teacher, tmp_path, monkeypatch):
    from ray._private.state import actors

    from tvt_ray.cluster import scoring

    before = settled()
    quick = {bound: read("ray_tvt_score_seconds_bucket", le=str(bound)) for bound in metrics.SECONDS}
    batches = []

    def record_lag(ended):
        batches.append(ended)
        metrics.record_lag(ended)

    monkeypatch.setattr(scoring, "record_lag", record_lag)
    settings = {"archs_per_trial": 3, "gpus_per_trial": 0, "scoring_workers": 2}
    summary = search(variant(config, search={"num_samples": 10}, cluster=settings), run_dir=tmp_path / "run").summary
    rows = RunFolder(tmp_path / "run").rows().read()

    def gained(name):
        return read(name) - before[name]

    assert wait_for(lambda: gained("ray_tvt_archs_scored_total") >= 10)
    assert gained("ray_tvt_archs_scored_total") == gained("ray_tvt_score_seconds_count") == 10
    for bound in metrics.SECONDS:
        as_quick = sum(row.seconds <= bound for row in rows)
        assert read("ray_tvt_score_seconds_bucket", le=str(bound)) - quick[bound] == as_quick
    assert 18 / 3 <= len(batches) <= 18  # of at most 3, the sample of 8 and the 10 together
    assert gained("ray_tvt_driver_lag_seconds_count") == len(batches)
    assert gained("ray_tvt_archs_failed_total") == 0
    assert pytest.approx(summary.best[0].score) in values("ray_tvt_best_score")
    classes = {actor["ActorClassName"] for actor in actors().values()}
    assert "ScoringTrial" in classes  # not the class that Tune wraps around it
    assert not any("ResourceTrainable" in name for name in classes)


@pytest.mark.night
@pytest.mark.ray
@pytest.mark.slow
def test_what_is_recorded_is_what_the_node_exports(cluster):
    """Every metric, under the names that the dashboard's queries use."""
    before = settled()
    scored = [dataclasses.replace(make_row(number), seconds=seconds) for number, seconds in enumerate((0.015, 7.0))]
    failed = [make_row(number, status="failed") for number in (2, 3)]
    metrics.record_rows([*scored, *failed], 2.5)
    metrics.record_lag(time.time() - 3)
    metrics.record_lag(time.time() + 60)  # a worker's clock that is ahead
    metrics.record_lag(None)
    metrics.record_epoch("a-student", {"images_per_s": 1234.5, "val_acc": 67.8})
    assert wait_for(lambda: read("ray_tvt_archs_failed_total") - before["ray_tvt_archs_failed_total"] == 2)
    assert wait_for(lambda: {sample.name for sample in scrape()} == EXPORTED)
    after = settled()
    gained = {name: after[name] - before[name] for name in EXPORTED}
    assert gained["ray_tvt_archs_scored_total"] == gained["ray_tvt_score_seconds_count"] == 2
    assert gained["ray_tvt_driver_lag_seconds_count"] == 2
    assert gained["ray_tvt_driver_lag_seconds_sum"] == pytest.approx(3.5005)  # Ray sums the middles of buckets
    assert 2.5 in values("ray_tvt_best_score")
    assert read("ray_tvt_images_per_second", arch_id="a-student") == 1234.5
    assert read("ray_tvt_val_accuracy_percent", arch_id="a-student") == 67.8


def test_queries_read_what_is_exported_and_leave_nothing_out():
    read_by_panels = {name for expression in EXPRESSIONS for name in re.findall(r"\bray_\w+", expression)}
    assert read_by_panels <= EXPORTED
    families = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in read_by_panels}
    assert families == {f"ray_{name}" for name in METRICS}


def test_panels_have_their_own_ids_and_places():
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] > 0 < place["w"] for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_the_dashboard_asks_for_its_data_source():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["DS_PROMETHEUS"]["type"] == "datasource"
    assert variables["DS_PROMETHEUS"]["query"] == "prometheus"
    assert isinstance(DASHBOARD["schemaVersion"], int)
    sources = [panel["datasource"] for panel in PANELS]
    sources += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"} for source in sources)


def test_every_metric_and_picture_is_documented():
    text = (REPO / "docs" / "dashboard.md").read_text()
    for name in EXPORTED:
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        assert f"`{family}`" in text
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures
    assert all((REPO / "docs" / picture).is_file() for picture in pictures)
