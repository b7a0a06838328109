"""From readings to a score on the scale of a sample, and that sample as a file."""

import math

import numpy as np
import pytest

from tvt_ray.errors import UsageError
from tvt_ray.scoring.calibration import Calibration, calibration_rng
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import FULL, ScoreSettings


def row(params=1, flops=1, status="ok", **readings):
    return Row(
        arch_id="id",
        space="autoformer",
        arch={"depth": [1, 2]},
        shape="shape",
        params=params,
        flops=flops,
        depth=3,
        status=status,
        error=None,
        seed=0,
        seconds=0.0,
        readings=readings,
    )


def pair(t, s, **others):
    """A row with TVT's two readings."""
    return row(attention_similarity=t, l2_norm=s, **others)


def test_tvt_is_the_sum_of_min_max_normalised_readings():
    calibration = Calibration.from_rows([pair(-3.0, 10.0), pair(-1.0, 30.0), row(status="failed")])
    assert calibration.score("tvt", pair(-1.0, 10.0)) == pytest.approx(1.0)
    assert calibration.score("tvt", pair(0.0, 40.0)) == pytest.approx(1.5 + 1.5)
    assert calibration.score("l2_norm", pair(0.0, 40.0)) == 40.0
    assert calibration.score("params", pair(0.0, 0.0, params=7)) == 7.0
    assert calibration.score("tvt", row(status="failed")) is None


def test_a_reading_that_never_varies_adds_nothing():
    calibration = Calibration.from_rows([pair(-1.0, 10.0), pair(-1.0, 30.0)])
    assert calibration.score("tvt", pair(-1.0, 20.0)) == pytest.approx(0.5)


def test_capacity_is_the_documented_sum_of_z_scores():
    sample = [(100, 10.0, 3.0), (1000, 20.0, 9.0), (10000, 60.0, 4.0)]
    calibration = Calibration.from_rows([row(params=p, rank_sum=r, log_norm=n) for p, r, n in sample])
    params, r, norm = np.array(sample).T

    def z(value, values):
        return (value - values.mean()) / values.std()

    expected = 2 * z(math.log(500), np.log(params)) + 2 * z(40.0, r) + z(5.0, norm)
    assert calibration.score("capacity", row(params=500, rank_sum=40.0, log_norm=5.0)) == pytest.approx(expected)


def test_depth_and_any_proxy_are_scores_of_their_own():
    calibration = Calibration.from_rows([])
    assert calibration.score("depth", row()) == 3
    assert calibration.score("synflow", row(synflow=2.5)) == 2.5
    assert ScoreSettings(name="synflow").to_read == (*FULL, "synflow")
    with pytest.raises(UsageError, match="score 'synflow' is made of 'synflow', which this run did not read"):
        calibration.score("synflow", row(l2_norm=1.0))


def test_a_score_is_of_the_sample_alone_not_of_the_rows_that_are_scored():
    calibration = Calibration.from_rows([pair(-3.0, 10.0), pair(-1.0, 30.0)])
    before = calibration.score("tvt", pair(-2.0, 15.0))
    calibration.score("tvt", pair(-900.0, 900.0))
    assert calibration.score("tvt", pair(-2.0, 15.0)) == before == pytest.approx(0.75)


def test_what_a_score_lacks_is_said_with_what_was_read():
    calibration = Calibration.from_rows([row(rank_sum=1.0)])
    with pytest.raises(UsageError, match=r"'log_norm', which this run did not read; it read rank_sum, params, flops"):
        calibration.score("capacity", row(rank_sum=1.0))
    with pytest.raises(UsageError, match="the calibration sample has no 'log_norm': search anew"):
        calibration.score("capacity", row(rank_sum=1.0, log_norm=1.0))


def test_an_unknown_score_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown score 'accuracy'; choices: capacity, tvt, "):
        Calibration(()).score("accuracy", row())


def test_failed_architectures_are_no_part_of_the_sample():
    calibration = Calibration.from_rows([row(status="failed"), row(params=7, zen=0.5)])
    assert calibration.sample == ({"params": 7.0, "flops": 1.0, "depth": 3.0, "zen": 0.5},)


def test_calibration_is_stored_and_read_back(tmp_path):
    calibration = Calibration.from_rows([pair(-0.1, 1 / 3), pair(-0.7, 2 / 3)])
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration
    probed = pair(-0.2, 0.5)
    assert Calibration.load(tmp_path / "c.json").score("tvt", probed) == calibration.score("tvt", probed)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"c\.json is missing, without which nothing is scored; --resume") as error:
        Calibration.load(tmp_path / "c.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"readings": [{"params": 1.0}',
        b"\xff\xfe{}",
        b"[]",
        b"null",
        b"{}",
        b'{"readings": null}',
        b'{"readings": [1]}',
        b'{"readings": "abc"}',
        b'{"readings": [{"params": "many"}]}',
        b'{"readings": [{"params": null}]}',
        b'{"readings": [{"params": NaN}]}',
    ],
    ids=repr,
)
def test_a_damaged_file_is_one_line(content, tmp_path):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.json is damaged \(.+\); --resume makes it anew") as error:
        Calibration.load(tmp_path / "c.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b'{"readings": []}', b'{"readings": {}}'], ids=repr)
def test_an_empty_sample_is_one_line(content, tmp_path):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.json holds no readings; --resume makes it anew") as error:
        Calibration.load(tmp_path / "c.json")
    assert "\n" not in str(error.value)


def test_the_samples_draw_is_of_the_runs_seed():
    first, again, other = (calibration_rng(seed).random() for seed in (3, 3, 4))
    assert first == again != other
