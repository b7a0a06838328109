"""What scores there are, and what a run reads so that it can be ranked by them."""

import pytest
from pydantic import ValidationError

from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.rows import ARITHMETIC
from tvt_ray.scoring.scores import FULL, SCORES, Score, ScoreSettings, Term, find_score, score_names


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
