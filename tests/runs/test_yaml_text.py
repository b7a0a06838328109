"""YAML as people write it, and what is said of what is not YAML."""

import re

import pytest

from tvt_ray.runs.yaml_text import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"a: 1\nb: [1, 2]\n", {"a": 1, "b": [1, 2]}),
        (b"\xef\xbb\xbfa: 1", {"a": 1}),
        ("a: données".encode(), {"a": "données"}),
        ("a: données".encode("utf-16"), {"a": "données"}),
        (b"a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (b"---\na: 1\n...\n", {"a": 1}),
        (b"", None),
        (b"# nothing\n", None),
        ("[64, 128]", [64, 128]),
        ("{a: {k: 1}, b: {k: 2}}", {"a": {"k": 1}, "b": {"k": 2}}),  # the same key in two mappings
        ("- k: 1\n- k: 2\n", [{"k": 1}, {"k": 2}]),
    ],
)
def test_a_document_is_read(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("base: &b {x: 1, y: 2}\nz:\n  <<: *b\n  x: 5\n", {"x": 5, "y": 2}),
        ("base: &b {x: 1, y: 2}\nz: {<<: [*b, {x: 4, q: 3}], y: 6}\n", {"x": 1, "y": 6, "q": 3}),
        ("deep: {inner: &a {<<: &b {x: 1, y: 1}, x: 2}}\nz: {<<: *a, x: 3}\n", {"x": 3, "y": 1}),
        ("z: {k: {<<: &a {x: 1}, x: 2}, more: {<<: *a, x: 3}}\n", {"k": {"x": 2}, "more": {"x": 3}}),
        ("base: &b [1, 2]\nz: *b\n", [1, 2]),
    ],
)
def test_what_is_merged_in_may_be_overridden(text, value):
    assert parse(text)["z"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\n\na: 3\n", "line 4, column 1: the key 'a' is there twice (first in line 1)"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4, column 3: the key 'b' is there twice (first in line 2)"),
        ("a: [{b: 1, 'b': 2}]", "line 1, column 12: the key 'b' is there twice (first in line 1)"),
        ("x: {<<: {a: 1}, b: 1, b: 2}", "line 1, column 23: the key 'b' is there twice (first in line 1)"),
        ("a: 1\r\na: 1\r\n", "line 2, column 1: the key 'a' is there twice (first in line 1)"),
        ("<<: {a: 1}\n<<: {b: 2}\n", "line 2, column 1: the key '<<' is there twice (first in line 1)"),
        ("3: a\n3: b\n", "line 2, column 1: the key '3' is there twice (first in line 1)"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_both_lines(text, message):
    with pytest.raises(ValueError, match="twice") as error:
        parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a:\n\tb: 1\n", "line 2, column 1: while scanning for the next token, found character '\\t' that cannot"),
        (b"a: 1\n---\na: 2\n", "line 2, column 1: expected a single document in the stream, but found another"),
        (b"a: [", "line 1, column 5: "),
        (b"a: b: c", "line 1, column 5: mapping values are not allowed here"),
        (b"a: *b", "line 1, column 4: found undefined alias 'b'"),
        (b"a: !!python/object:os.system {}", "line 1, column 4: could not determine a constructor for the tag"),
        (b"? [a]\n: 1\n", "line 1, column 3: while constructing a mapping, found unhashable key"),
        (b"a: {{ b }}", "line 1, column 5: while constructing a mapping, found unhashable key"),
        (b"a: 1\nb: 2024-13-45\n", "line 2, column 4: '2024-13-45' is no timestamp (month must be in 1..12)"),
        (b"a: 0b_", "line 1, column 4: '0b_' is no int ("),
        (b"a: !!bool maybe", "line 1, column 4: 'maybe' is no bool ("),
        (b"a: !!int ''", "line 1, column 4: '' is no int ("),
        (b"a: !!timestamp now", "line 1, column 4: 'now' is no timestamp ("),
        (b"[" * 1000, "it is nested too deeply"),
        (b"a: 1\nb: \xe9\n", "line 2: 0xe9: invalid continuation byte; save it as UTF-8"),
        (b"a: 1\nb: \x00", "line 2: 0x0: special characters are not allowed"),
    ],
)
def test_what_is_not_yaml_is_one_line_that_says_where(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_aliases_that_repeat_more_than_fits_into_memory_are_refused_at_once():
    """465 bytes that stand for 10^9 values, and a list that is in itself."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    with pytest.raises(ValueError, match=r"line \d+, column \d+: it holds more than 100,000 values"):
        parse(bomb)
    with pytest.raises(ValueError, match="an alias is inside of what it names"):
        parse("a: &a [1, *a]")
    found = parse("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}, e: *a}")
    assert found == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"d": 1, "e": [1, 2]},
    }
