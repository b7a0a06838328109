"""JSON that may be a stranger's."""

import pytest

from tvt_ray.strict import parse_json


@pytest.mark.parametrize("text", ["[Infinity]", "[-Infinity]", "[NaN]", "[" * 100_000, "{", ""])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_is_read():
    assert parse_json(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
