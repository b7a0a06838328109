"""A search within a latency, on a real Ray cluster."""

import json

import pytest

from tests.cluster.conftest import variant
from tests.conftest import SMALL_SPACES, call
from tests.latency.synthetic import OTHER, synthetic_profile, true_ms
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run
from tvt_ray.verbs.search import search

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = SMALL_SPACES["vit"]
LIMIT_MS = 3.0


@pytest.mark.night
def test_only_what_is_predicted_to_be_inside_is_read_also_on_resume(cluster, config, tmp_path):
    inside = {SPACE.arch_id(arch) for arch in SPACE.enumerate() if true_ms(SPACE, arch) <= LIMIT_MS}
    profile = synthetic_profile(SPACE)
    profile.save(tmp_path / "p.json")
    budget = {"max_latency_ms": LIMIT_MS, "latency_profile": str(tmp_path / "p.json")}
    score = {"readings": "score", "proxies": None, "calibration_samples": 4}
    asked = {"num_samples": SPACE.size() - 1}
    small = variant(config, space=SPACE.model_dump(mode="json"), budget=budget, score=score, search=asked)
    some = small.with_(search={"num_samples": 6})
    first = search(some, run_dir=tmp_path / "run").summary
    assert first.num_scored == 6
    assert all(each.latency_ms > 0 for each in first.best)
    assert first.seconds.keys() >= {"scoring", "latency"}
    assert RunFolder(tmp_path / "run").latency_file.is_file()

    (tmp_path / "p.json").unlink()  # the run keeps its own
    summary = search(small, run_dir=tmp_path / "run", resume=True).summary
    assert {row.arch_id for row in RunFolder(tmp_path / "run").rows().read()} == inside
    assert "no more were found within the budget (max_latency_ms 3 for a batch of 1)" in summary.note
    for each in summary.best:
        assert each.predicted_latency_ms == pytest.approx(true_ms(SPACE, SPACE.from_json(each.arch)), rel=1e-3)
        assert each.to_json()["latency_ms"] == each.latency_ms
    run = Run(tmp_path / "run")
    assert run.ranking(max_latency_ms=LIMIT_MS) == run.ranking()
    assert 0 < len(run.ranking(max_latency_ms=2.6).scored) < len(inside)


@pytest.mark.night
def test_a_profile_of_another_device_limits_and_nothing_is_measured(cluster, tmp_path, capsys):
    synthetic_profile(SPACE, device=OTHER).save(tmp_path / "p.json")
    settings = {
        "space": json.dumps(SPACE.model_dump(mode="json")),
        "budget.latency_profile": tmp_path / "p.json",
        "score.calibration_samples": 2,
        "probe.num_images": 10,
    }
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    flags += ["--max-latency-ms", LIMIT_MS, "--num-samples", "4", "--readings", "score"]
    code, out, err = call(capsys, "search", *flags, "--run-dir", tmp_path / "run")
    assert code == 0, err
    assert "ms: latency, predicted for the profile's device" in out
    assert "predicted for another processor (cpu, 3 cores), which this machine is not; nothing was measured" in err
    code, out, err = call(capsys, "search", *flags, "--run-dir", tmp_path / "run", "--resume", "--json")
    best = json.loads(out.splitlines()[-1])["best"]
    assert {"latency_ms" in each for each in best} == {False}
    assert all(each["predicted_latency_ms"] <= LIMIT_MS for each in best)
