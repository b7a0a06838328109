"""Files of trained accuracies, of the real format and broken, in every coding that editors and shells write."""

import json
import random

import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import UsageError
from tvt_ray.judging.truth import read_ground_truth, read_json_lines
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.pit import PiTSpace

SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture
def lines():
    archs = list(SPACE.enumerate())[:5]
    return [{"space": "autoformer", "arch": SPACE.to_json(a), "x_acc": 50.0 + i} for i, a in enumerate(archs)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_ground_truth_is_read_with_its_columns_and_costs(tmp_path, lines):
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", lines), SPACE, 10)
    assert truth.columns == ("x_acc",)
    assert truth.accuracy("x_acc").tolist() == [50, 51, 52, 53, 54]
    assert truth.entries[0].params == SPACE.cost(truth.entries[0].arch, 10).params
    lines[0]["params"] = "a lot"  # no number: arithmetic stands in
    (again,) = read_ground_truth(write(tmp_path / "t.jsonl", lines), SPACE, 10)
    assert again.entries[0].params == truth.entries[0].params
    assert truth.within(None, truth.entries[0].params).sum() >= 1


def test_published_architectures_are_read_in_the_published_space(tmp_path, lines):
    """A file may hold several spaces; the configured one is used where it holds them all."""
    pit = PiTSpace()
    arch = pit.sample(random.Random(0))
    count = pit.cost(arch, 100).params
    entry = {"space": "pit", "arch": pit.to_json(arch), "params_100_classes": count, "x_acc": 1.0}
    truths = read_ground_truth(write(tmp_path / "t.jsonl", [*lines, entry]), SPACE, 10)
    assert [truth.space for truth in truths] == [SPACE, pit]
    assert truths[1].entries[0].params == count > pit.cost(arch, 10).params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": {"embed_dim": 7}}, "line 2"),
        ({"space": "deit"}, "unknown search space 'deit'; choices: autoformer, pit, vit"),
        ({"space": ["pit"]}, "unknown search space"),
        ({"x_acc": None}, "x_acc is not in all"),
        ({"arch": 3}, "a line is an object"),
        ({"x_acc": float("nan")}, "line 2: x_acc is nan; an accuracy is a number from 0 to 100, in percent"),
        ({"x_acc": float("inf")}, "x_acc is inf"),
        ({"x_acc": 761}, "x_acc is 761; an accuracy is"),
        ({"x_acc": -1}, "x_acc is -1; an accuracy is"),
        ({"x_acc": "76.1"}, "x_acc is '76.1'; an accuracy is"),
        ({"x_acc": True}, "x_acc is True; an accuracy is"),
        ({"x_acc": 0.76}, r"line 2: x_acc is 0\.76, and up to 54 in other lines: a column is in percent or in frac"),
        (
            {"params": 300},
            r"line 2: params is 300, but the architecture has [\d,]+ parameters; give their number",
        ),
        ({"params": 0}, "params is 0, but"),
        ({"params": -5.1}, r"params is -5\.1, but"),
        ({"params": float("nan")}, "params is nan, but"),
        ({"params": 10**400}, "params is 1[0,]+, but"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, lines, change, message):
    lines[1] = {**lines[1], **change}
    with pytest.raises(UsageError, match=message) as error:
        read_ground_truth(write(tmp_path / "t.jsonl", lines), SPACE, 10)
    assert "\n" not in str(error.value)


def test_a_repeated_architecture_is_refused_and_whether_the_lines_agree_is_said(tmp_path, lines):
    with pytest.raises(UsageError, match=r"line 6 repeats the architecture of .*line 1, with the same accuracies"):
        read_ground_truth(write(tmp_path / "t.jsonl", [*lines, lines[0]]), SPACE, 10)
    other = {**lines[0], "x_acc": 61.5}
    with pytest.raises(UsageError, match="line 1, with other accuracies; keep one of them, or"):
        read_ground_truth(write(tmp_path / "t.jsonl", [*lines, other]), SPACE, 10)


@pytest.mark.parametrize("unit", [1e3, 1e6])
@pytest.mark.parametrize("digits", [1, 3, 9])
def test_a_count_in_thousands_or_millions_is_the_exact_one(tmp_path, unit, digits):
    """5.1 stands for 5,100,196, and is not a network of five parameters."""
    arch = AutoFormerSpace().sample(random.Random(0))
    exact = AutoFormerSpace().cost(arch, 100).params
    line = {"space": "autoformer", "arch": AutoFormerSpace().to_json(arch), "x_acc": 70.0}
    line["params"] = round(exact / unit, digits)
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", [line]), SPACE, 100)
    assert truth.entries[0].params == exact


def test_a_band_holds_architectures_whatever_unit_their_lines_have(tmp_path, lines):
    for line in lines[::2]:
        line["params"] = SPACE.cost(SPACE.from_json(line["arch"]), 10).params / 1e6
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", lines), SPACE, 10)
    exact = [SPACE.cost(entry.arch, 10).params for entry in truth.entries]
    assert [entry.params for entry in truth.entries] == exact
    assert truth.within(min(exact), max(exact)).all()


def test_a_count_of_other_classes_is_as_the_file_gives_it(tmp_path, lines):
    counts = [SPACE.cost(SPACE.from_json(line["arch"]), 1000).params for line in lines]
    given = [{**line, "params": count} for line, count in zip(lines, counts, strict=True)]
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", given), SPACE, 10)
    assert [entry.params for entry in truth.entries] == counts


def test_a_column_of_fractions_becomes_percent_and_that_is_said(tmp_path, lines, capsys):
    given = [{**line, "y_acc": share} for line, share in zip(lines, (0.25, 1, 0, 0.5, 0.75), strict=True)]
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", given), SPACE, 10)
    assert truth.accuracy("y_acc").tolist() == [25, 100, 0, 50, 75]
    assert truth.accuracy("x_acc").tolist() == [50, 51, 52, 53, 54]
    assert capsys.readouterr().err == (
        f"{tmp_path / 't.jsonl'}, line 1: y_acc is 0.25, and nowhere above 1: fractions, taken as percent\n"
    )


def test_a_column_at_chance_stays_in_percent(tmp_path, lines, capsys):
    given = [{**line, "x_acc": percent} for line, percent in zip(lines, (1.0, 0, 50, 2, 100), strict=True)]
    (truth,) = read_ground_truth(write(tmp_path / "t.jsonl", given), SPACE, 10)
    assert truth.accuracy("x_acc").tolist() == [1, 0, 50, 2, 100]
    assert capsys.readouterr().err == ""


def test_a_column_that_is_null_everywhere_is_none(tmp_path, lines):
    given = [{**line, "y_acc": None} for line in lines]
    assert read_ground_truth(write(tmp_path / "t.jsonl", given), SPACE, 10)[0].columns == ("x_acc",)


def test_a_file_that_windows_wrote_is_read(tmp_path, lines):
    text = "".join(json.dumps(line) + "\r\n" for line in lines)
    (tmp_path / "t.jsonl").write_bytes(text.encode("utf-16"))
    (truth,) = read_ground_truth(tmp_path / "t.jsonl", SPACE, 10)
    assert truth.accuracy("x_acc").tolist() == [50, 51, 52, 53, 54]


def test_the_published_table_is_read_whole(shared_data):
    for name, count in (("autoformer", 100), ("pit", 50)):
        (truth,) = read_ground_truth(shared_data / "vit_bench_101" / f"{name}_dev.jsonl", AutoFormerSpace(), 10)
        assert len(truth.entries) == count
        assert {"cifar100_kd_acc", "flowers_kd_acc", "chaoyang_kd_acc"} <= set(truth.columns)


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
