"""What all settings refuse, wherever they stand, and JSON that may be a stranger's."""

import pytest

from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.strict import Strict, parse_json


def leaves(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def layer(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


SETTINGS = dict(leaves(RunConfig().model_dump(mode="json")))
NUMBERS = [path for path, value in SETTINGS.items() if isinstance(value, float)]
SEEDS = [path for path in SETTINGS if path[-1].endswith("seed")]


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-inf"])
def test_a_number_is_finite(path, value):
    with pytest.raises(UsageError, match=rf"config {'.'.join(path)}"):
        load_config(None, [layer(path, value)])


def test_numbers_of_every_section_were_tried():
    assert {path[0] for path in NUMBERS} >= {"data", "teacher_training", "distill", "cluster"}
    assert len(SEEDS) == 5


@pytest.mark.parametrize("path", SEEDS, ids=".".join)
def test_a_seed_is_one_that_every_generator_takes(path):
    assert load_config(None, [layer(path, 2**32 - 1)])
    for seed in (-1, 2**32, "one"):
        with pytest.raises(UsageError, match=rf"config {'.'.join(path)}: Input should be"):
            load_config(None, [layer(path, seed)])


def test_values_stay_as_they_are_and_have_no_other_names():
    class Point(Strict):
        x: float = 0

    with pytest.raises(ValueError, match="frozen"):
        Point().x = 1
    with pytest.raises(ValueError, match="not permitted"):
        Point(y=1)


@pytest.mark.parametrize("text", ["[Infinity]", "[-Infinity]", "[NaN]", "[" * 100_000, "{", ""])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_is_read():
    assert parse_json(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
