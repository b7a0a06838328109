"""JSON lines in every coding that editors and shells write, and what is said of other files."""

import pytest

from tvt_ray.errors import UsageError
from tvt_ray.judging.json_lines import read_json_lines

TEXT = '{"a": 1}\n\n  \n{"a": "é"}\n'


@pytest.fixture
def read(tmp_path):
    def read_bytes(data):
        (tmp_path / "t.jsonl").write_bytes(data)
        lines = list(read_json_lines(tmp_path / "t.jsonl"))
        return [(where.removeprefix(f"{tmp_path / 't.jsonl'}, "), value) for where, value in lines]

    return read_bytes


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_every_coding_is_read_and_blank_lines_are_counted(read, coding):
    assert read(TEXT.encode(coding)) == [("line 1", {"a": 1}), ("line 4", {"a": "é"})]


def test_both_orders_of_bytes_are_read(read):
    for mark, coding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        assert read(mark + TEXT.encode(coding))[1] == ("line 4", {"a": "é"})


def test_lines_end_as_on_windows_too(read):
    assert read(TEXT.replace("\n", "\r\n").encode()) == read(TEXT.encode())


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x1c", "\x0b", "\x0c"])
def test_what_other_readers_take_for_a_line_end_may_stand_in_a_string(read, separator):
    text = f'{{"a": "x{separator}y"}}\n{{"a": 2}}\n'
    if separator >= "\u0080":
        assert read(text.encode()) == [("line 1", {"a": f"x{separator}y"}), ("line 2", {"a": 2})]
    else:  # JSON has no control characters in strings
        with pytest.raises(UsageError, match="line 1 is not JSON: Invalid control character"):
            read(text.encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a": 1', "line 2 is not JSON: "),
        (b'{"a": 1}\r{"a": 2}', "line 1 is not JSON: Extra data"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "line 1 is not JSON: the key 'c' is there twice"),
        (b"[" * 100_000, "line 1 is not JSON: "),
        (b'{"a": "\xe9"}', "is no UTF-8 text (byte 7); save it as UTF-8"),
        (b"\xff\xfe{", "is no UTF-16 text (byte 2); save it as UTF-8"),
    ],
)
def test_what_is_not_json_is_one_line_that_says_where(read, data, message):
    with pytest.raises(UsageError) as error:
        read(data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_file_has_no_lines(read):
    assert read(b"") == []


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        list(read_json_lines(tmp_path))
