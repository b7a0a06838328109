import dataclasses
import math
import random
import time

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import UsageError
from tvt_ray.proxies import PROXIES
from tvt_ray.search.fusion import ALWAYS_READ, SCORES, Calibration, ScoreSettings
from tvt_ray.search.rows import ARITHMETIC, Row
from tvt_ray.search.scorer import Scorer, ScoringTask
from tvt_ray.space import as_space


@pytest.fixture
def task(space, probe):
    return ScoringTask(space, 10, ScoreSettings().proxies, 0, probe)


def test_rows_carry_everything(task):
    arch = task.space.sample(random.Random(0))
    row = Scorer(task).score(arch)
    assert row.status == "ok"
    assert row.error is None
    assert row.arch_id == task.space.arch_id(arch)
    assert task.space.from_json(row.arch) == arch
    assert (row.params, row.flops) == task.space.cost(arch, 10)
    assert row.components.keys() == {"t", "s", "r", "log_norm"}
    assert row.seconds > 0
    assert row.score is None


def test_a_score_depends_on_the_architecture_not_on_the_moment(task):
    """Any order, any batch, another scorer, whatever the global generator's state."""
    archs = [task.space.sample(random.Random(i)) for i in range(12)]
    forward = {row.arch_id: row.components for row in Scorer(task).score_all(archs)}
    torch.manual_seed(123)
    backward = {row.arch_id: row.components for row in Scorer(task).score_all(archs[::-1])}
    alone = {task.space.arch_id(arch): Scorer(task).components(arch) for arch in archs}
    assert forward == backward == alone
    reseeded = Scorer(dataclasses.replace(task, seed=1)).components(archs[0])
    assert reseeded != alone[task.space.arch_id(archs[0])]


def test_what_goes_wrong_is_a_row_with_its_reason(probe, monkeypatch):
    space = as_space(SMALL_SPACES["autoformer"])
    task = ScoringTask(space, 10, ("t",), 0, probe)
    monkeypatch.setitem(PROXIES, "t", lambda student, probe: {"t": float("nan")})
    row = Scorer(task).score(space.sample(random.Random(0)))
    assert (row.status, row.error) == ("failed", "ArithmeticError: t is not a finite number")
    assert row.components == {}
    monkeypatch.setitem(PROXIES, "t", lambda student, probe: 1 / 0)
    assert Scorer(task).score(space.sample(random.Random(0))).error == "ZeroDivisionError: division by zero"


def test_readings_are_the_mean_over_the_initialisations(task):
    arch = task.space.sample(random.Random(0))
    (one, two), three = (
        [Scorer(task)._readings(arch, draw) for draw in (0, 1)],
        Scorer(dataclasses.replace(task, num_inits=2)).components(arch),
    )
    assert one["t"] != two["t"]
    assert three == pytest.approx({name: (one[name] + two[name]) / 2 for name in one})


def test_out_of_memory_is_met_with_smaller_chunks_and_the_same_result(task, monkeypatch):
    arch = task.space.sample(random.Random(0))
    expected, seen = Scorer(task).components(arch), []
    infer = PROXIES["t"]

    def small_memory(student, probe):
        seen.append(probe.chunk)
        if probe.chunk > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return infer(student, probe)

    monkeypatch.setitem(PROXIES, "t", small_memory)
    scorer = Scorer(task)
    assert scorer.components(arch) == pytest.approx(expected, rel=1e-5)
    assert seen[-1] == 2
    seen.clear()
    scorer.components(arch)
    assert seen == [2]  # it is not tried again with each architecture


def test_what_fits_in_no_chunk_is_a_row_with_its_reason(task, monkeypatch):
    def no_memory(student, probe):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(PROXIES, "t", no_memory)
    assert Scorer(task).score(task.space.sample(random.Random(0))).error == "OutOfMemoryError: CUDA out of memory"


def test_what_takes_too_long_is_a_row_with_its_reason(task, monkeypatch):
    calm = Scorer(dataclasses.replace(task, max_seconds=30.0)).score(task.space.sample(random.Random(0)))
    assert calm.status == "ok"
    monkeypatch.setitem(PROXIES, "t", lambda student, probe: time.sleep(20))
    row = Scorer(dataclasses.replace(task, max_seconds=0.05)).score(task.space.sample(random.Random(0)))
    assert row.error == "TimeoutError: scoring took more than 0.05 s (search.max_seconds_per_arch)"
    assert row.seconds < 15


def test_bfloat16_ranks_like_float32_and_leaves_the_other_readings_alone(task):
    archs = [task.space.sample(random.Random(i)) for i in range(12)]
    half = dataclasses.replace(task, probe=dataclasses.replace(task.probe, precision=torch.bfloat16))
    exact, rounded = (Scorer(each).score_all(archs) for each in (task, half))
    for one, two in zip(exact, rounded, strict=True):
        assert two.components["t"] == pytest.approx(one.components["t"], rel=0.05)
        assert two.components["t"] != one.components["t"]
        assert {**two.components, "t": 0} == {**one.components, "t": 0}


def row(params=1, flops=1, status="ok", **components):
    return Row("id", "autoformer", {"depth": [1, 2]}, params, flops, status, None, 0, 0.0, components)


def test_tvt_is_the_sum_of_min_max_normalised_readings():
    calibration = Calibration.from_rows([row(t=-3.0, s=10.0), row(t=-1.0, s=30.0), row(status="failed")])
    assert calibration.fuse("tvt", row(t=-1.0, s=10.0)) == pytest.approx(1.0)
    assert calibration.fuse("tvt", row(t=0.0, s=40.0)) == pytest.approx(1.5 + 1.5)
    assert calibration.fuse("s", row(t=0.0, s=40.0)) == 40.0
    assert calibration.fuse("params", row(params=7, t=0.0, s=0.0)) == 7.0
    assert calibration.fuse("tvt", row(status="failed")) is None


def test_a_reading_that_never_varies_adds_nothing():
    calibration = Calibration.from_rows([row(t=-1.0, s=10.0), row(t=-1.0, s=30.0)])
    assert calibration.fuse("tvt", row(t=-1.0, s=20.0)) == pytest.approx(0.5)


def test_calibration_is_stored_and_read_back(tmp_path):
    calibration = Calibration.from_rows([row(t=-0.1, s=1 / 3), row(t=-0.7, s=2 / 3)])
    calibration.save(tmp_path / "c.json", 0.5)
    assert Calibration.load(tmp_path / "c.json") == calibration


def test_tvt_ray_is_the_documented_sum_of_z_scores():
    sample = [(100, 10.0, 3.0), (1000, 20.0, 9.0), (10000, 60.0, 4.0)]
    calibration = Calibration.from_rows([row(params=p, r=r, log_norm=n) for p, r, n in sample])
    params, r, norm = np.array(sample).T

    def z(value, values):
        return (value - values.mean()) / values.std()

    expected = 2 * z(math.log(500), np.log(params)) + 2 * z(40.0, r) + z(5.0, norm)
    assert calibration.fuse("tvt_ray", row(params=500, r=40.0, log_norm=5.0)) == pytest.approx(expected)


def test_depth_and_any_proxy_are_scores_of_their_own():
    calibration = Calibration.from_rows([])
    assert calibration.fuse("depth", row()) == 3
    assert calibration.fuse("synflow", row(synflow=2.5)) == 2.5
    assert ScoreSettings(name="synflow").proxies == ("t", "s", "r", "log_norm", "synflow")
    with pytest.raises(UsageError, match="score 'synflow' reads 'synflow', which was not read here"):
        calibration.fuse("synflow", row(t=1.0))


def test_every_score_is_made_of_readings_that_its_run_has():
    for name, score in SCORES.items():
        assert set(score.readings) <= {*ScoreSettings(name=name).proxies, *ARITHMETIC}
    for name in ("tvt", "tvt_ray"):
        assert set(SCORES[name].readings) <= {*ALWAYS_READ, *ARITHMETIC}  # any run can be ranked by them
    with pytest.raises(ValueError, match="choices: tvt_ray, tvt, "):
        ScoreSettings(name="accuracy")
