"""What scores there are, and what a run reads so that it can be ranked by them."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from tvt_ray.errors import UsageError
from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.rows import ARITHMETIC, Row
from tvt_ray.scoring.scores import (
    FULL,
    SCORES,
    Calibration,
    Score,
    ScoreSettings,
    Term,
    calibration_rng,
    find_score,
    score_names,
)


def test_every_score_is_made_of_readings_that_its_run_has():
    for name, score in SCORES.items():
        assert set(score.readings) <= {*ScoreSettings(name=name).to_read, *ARITHMETIC}
        assert set(score.readings) <= {*ScoreSettings(name=name, readings="score").to_read, *ARITHMETIC}
    for name in ("tvt", "capacity"):
        assert set(SCORES[name].readings) <= {*FULL, *ARITHMETIC}  # any full run can be ranked by them
    with pytest.raises(ValueError, match="choices: capacity, tvt, "):
        ScoreSettings(name="accuracy")


def test_the_default_is_capacity_with_everything_that_tvt_needs_too():
    settings = ScoreSettings()
    assert (settings.name, settings.readings, settings.proxies) == ("capacity", "full", None)
    assert settings.to_read == FULL == ("attention_similarity", "l2_norm", "rank_sum", "log_norm")


@pytest.mark.parametrize(
    ("name", "to_read"),
    [
        ("capacity", ("rank_sum", "log_norm")),
        ("tvt", ("attention_similarity", "l2_norm")),
        ("params", ()),
        ("flops", ()),
        ("depth", ()),
        ("synflow", ("synflow",)),
    ],
)
def test_what_the_score_needs_can_be_all_that_is_read(name, to_read):
    assert ScoreSettings(name=name, readings="score").to_read == to_read
    assert ScoreSettings(name=name).to_read == tuple(dict.fromkeys([*FULL, *to_read]))


def test_any_proxy_is_read_beside_the_full_ones_where_it_ranks():
    assert ScoreSettings(name="synflow").to_read == (*FULL, "synflow")


def test_proxies_that_are_given_are_what_is_read():
    settings = ScoreSettings(name="params", proxies=("snip", "rank_sum"))
    assert settings.to_read == ("snip", "rank_sum")
    assert ScoreSettings(name="depth", proxies=()).to_read == ()
    assert ScoreSettings(name="capacity", proxies=("log_norm", "rank_sum"), readings="full").to_read == (
        "log_norm",
        "rank_sum",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "synflow", "proxies": ("snip",)}, "'synflow' is made of 'synflow', which this run did not read"),
        ({"name": "tvt", "proxies": ("l2_norm",)}, "it read params, flops, depth, l2_norm"),
        ({"name": "capacity", "proxies": ()}, "'capacity' is made of 'rank_sum'"),
        ({"proxies": ("no_such",)}, "unknown proxy 'no_such'; choices: attention_similarity, "),
        ({"proxies": ("params",)}, "unknown proxy 'params'"),
        ({"readings": "all"}, "'full' or 'score'"),
        ({"calibration_samples": 1}, "greater than or equal to 2"),
        ({"nmae": "tvt"}, "nmae"),
    ],
)
def test_what_cannot_be_scored_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ScoreSettings(**values)


def test_every_name_that_ranks_is_found_and_listed():
    assert score_names()[:5] == ["capacity", "tvt", "params", "flops", "depth"]
    assert set(PROXIES) <= set(score_names())
    assert all(isinstance(find_score(name), Score) for name in score_names())


def test_a_single_reading_ranks_as_it_is():
    assert find_score("zen") == Score((Term("zen"),), "none")
    assert find_score("params") == Score((Term("params"),))
    assert find_score("params").proxies == ()
    assert find_score("capacity") is SCORES["capacity"]
    assert find_score("capacity").readings == ("params", "rank_sum", "log_norm")
    assert find_score("capacity").proxies == ("rank_sum", "log_norm")


def test_an_unknown_score_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"^unknown score 'accuracy'; choices: capacity, tvt, params, .*rank_sum"):
        find_score("accuracy")


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


def test_no_row_is_scored_by_an_unknown_score():
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
