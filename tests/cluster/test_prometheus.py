"""A real Prometheus reads a search and a training, and every query of the Grafana board is put to it."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
import ray
import yaml

from tests.cluster.conftest import free_port, variant
from tests.cluster.prometheus import wait_for
from tests.cluster.test_metrics import EXPRESSIONS
from tests.conftest import REPO, make_row
from tvt_ray.cluster import metrics
from tvt_ray.verbs.distill import distill
from tvt_ray.verbs.search import search

pytestmark = [
    pytest.mark.night,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus"),
]


@pytest.fixture
def prometheus(cluster, tmp_path):
    """Its address. It reads by the shipped file, more often, the nodes of this test's cluster."""
    settings = yaml.safe_load((REPO / "dashboards" / "prometheus.yml").read_text())
    nodes = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]]
    targets, port = tmp_path / "targets.json", free_port()
    targets.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": nodes}]))
    (scraping,) = settings["scrape_configs"]
    (found,) = scraping["file_sd_configs"]
    assert found["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    found["files"], scraping["scrape_interval"], scraping["scrape_timeout"] = [str(targets)], "1s", "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/kept"]
    process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        assert wait_for(lambda: answers(f"{address}/-/ready"))
        yield address
    finally:
        process.kill()
        process.wait()


def answers(url):
    """Whether somebody is there."""
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def values_of(address, expression, start):
    """What a panel draws: the values of all series of a query since then."""
    expression = expression.replace("$__rate_interval", "10s")
    asked = urllib.parse.urlencode({"query": expression, "start": start, "end": time.time(), "step": 1})
    with urllib.request.urlopen(f"{address}/api/v1/query_range?{asked}", timeout=10) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return [float(value) for series in answer["data"]["result"] for _, value in series["values"]]


def test_every_query_of_the_board_has_data(prometheus, cluster, config, teacher, tmp_path):
    start, run = time.time(), tmp_path / "run"
    settings = {"archs_per_trial": 3, "gpus_per_trial": 0, "scoring_workers": 2, "gpus_per_training_worker": 0}
    asked = variant(config, search={"num_samples": 60}, cluster=settings, distill={"epochs": 6})
    search(asked, run_dir=run)
    # A histogram that appears with all that it will ever count has no rate: so once more, when it has been seen.
    assert wait_for(lambda: values_of(prometheus, "ray_tvt_driver_lag_seconds_count", start))
    more = variant(asked, search={"num_samples": 120})
    best = search(more, run_dir=run, resume=True).summary.best[0].score
    distill(run, top_k=1)
    metrics.record_rows([make_row(1, status="failed")], best)
    empty = set(EXPRESSIONS)

    def all_have_data():
        for expression in list(empty):
            if any(math.isfinite(value) for value in values_of(prometheus, expression, start)):
                empty.discard(expression)
        return not empty

    assert wait_for(all_have_data, 60), sorted(empty)
    assert max(values_of(prometheus, "sum(ray_tvt_archs_scored_total)", start)) >= 60
    assert best in values_of(prometheus, "max(ray_tvt_best_score)", start)
