"""What Ray's nodes show to Prometheus, and the names under which they show this project's metrics."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from ray.util.metrics import Counter, Gauge, Histogram, Metric

from tvt_ray.cluster import metrics

SUFFIXES = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_count", "_sum")}
METRICS = {metric.info["name"]: metric for metric in vars(metrics).values() if isinstance(metric, Metric)}
EXPORTED = {f"ray_{name}{suffix}" for name, metric in METRICS.items() for suffix in SUFFIXES[type(metric)]}


def scrape() -> list[Sample]:
    """The samples of this project's metrics on all nodes of the connected cluster."""
    samples = []
    for node in filter(lambda node: node["Alive"], ray.nodes()):
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        samples += [sample for family in families for sample in family.samples]
    return [sample for sample in samples if sample.name.startswith("ray_tvt_")]


def read(name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels; 0 when there are none."""
    return sum(s.value for s in scrape() if s.name == name and labels.items() <= s.labels.items())


def values(name: str) -> list[float]:
    """What each process shows under this name; one that has ended is shown for a while."""
    return [sample.value for sample in scrape() if sample.name == name]


def wait_for(condition, timeout_s: float = 20) -> bool:
    """Whether the condition came true; processes hand their metrics over once a second (tests/conftest.py)."""
    deadline = time.monotonic() + timeout_s
    while not (came := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return came


@contextmanager
def watch(name: str) -> Iterator[set[tuple[str, float]]]:
    """What a student's gauge shows while the block runs, as (arch_id, value): it goes with the worker that set it."""
    seen: set[tuple[str, float]] = set()
    stopped = threading.Event()

    def look() -> None:
        while not stopped.wait(0.5):
            seen.update((sample.labels["arch_id"], sample.value) for sample in scrape() if sample.name == name)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()
