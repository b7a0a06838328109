"""Plugins on a real Ray cluster, as a user runs them: workers import what the driver was told of."""

import json
import os
import subprocess
import sys

import pytest

import tvt_ray
from tests.cluster.conftest import SMALLER, readings
from tests.extending.examples import EXAMPLES, loaded
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.inputs import make_task
from tvt_ray.scoring.reader import Reader

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SEARCH = [
    *SMALLER,
    *("--set", "plugins=[my_space, my_proxy]", "--set", "space.name=plain", "--num-samples", "6"),
    *("--score", "spectral_sum", "--readings", "score"),  # no teacher
]


def call(folder, *words, **environment):
    """`python -m tvt_ray` in a folder: the exit code, the JSON of its last line, and standard error."""
    command = [sys.executable, "-m", "tvt_ray", *map(str, words), "--json"]
    environment = {**os.environ, **environment}
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else None, done.stderr


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A folder with the examples of docs/extending.md, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("modules")
    for name, code in EXAMPLES.items():
        (folder / f"{name}.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def searched(cluster, modules, tmp_path_factory):
    """A run folder, and what the search said. The driver was started in the modules' folder, of which Ray tells."""
    run = tmp_path_factory.mktemp("runs") / "run"
    code, result, error = call(modules, "search", "--run-dir", run, *SEARCH, "--ray-address", cluster)
    assert code == 0, error
    return run, result


@pytest.mark.night
def test_workers_read_a_space_and_a_proxy_of_plugins_as_this_process_does(searched, digits, tmp_path):
    run, result = searched
    assert (result["num_scored"], result["num_failed"], result["score"]) == (6, 0, "spectral_sum")
    with loaded(tmp_path):
        config = RunFolder(run).config()
        reader, found = Reader(make_task(config, digits, teacher=None)), readings(run)
        archs = {config.space.arch_id(arch): arch for arch in config.space.enumerate()}
        assert found == {arch_id: reader.readings(archs[arch_id]) for arch_id in found}


@pytest.mark.night
def test_students_of_a_plugin_are_trained_by_its_loss_and_exported_by_its_export(
    searched, cluster, teacher, modules, tmp_path
):
    run, found = searched[0], readings(searched[0])
    plugins = ["--set", "plugins=[my_space, my_proxy, my_loss, my_export]"]
    loss = ["--epochs", 1, "--set", "distill.loss.weights.relations=0.5"]
    code, result, error = call(modules, "distill", "--run-dir", run, *plugins, *loss, "--ray-address", cluster)
    assert code == 0, error
    (student,) = result["students"]
    assert student["arch_id"] == max(found, key=lambda arch_id: found[arch_id]["spectral_sum"])
    trained = run / "distill" / student["arch_id"]
    (epoch,) = map(json.loads, (trained / "metrics.jsonl").read_text().splitlines())
    assert epoch["relations"] > 0
    assert f"# {student['arch_id']}" in (trained / "README.md").read_text()
    with loaded(tmp_path):
        assert tvt_ray.load_student(trained).card.space.name == "plain"


@pytest.mark.night
def test_a_plugin_that_workers_cannot_import_stops_the_run(cluster, modules, tmp_path):
    """The driver has it by PYTHONPATH, which the workers of a cluster that runs already do not inherit."""
    words = ["search", "--run-dir", tmp_path / "run", *SEARCH, "--ray-address", cluster]
    code, _, error = call(tmp_path, *words, PYTHONPATH=str(modules))
    assert code == 1
    assert "stopped after 0 of 6 architectures: 3 workers in a row could not be started" in error.splitlines()[-1]
