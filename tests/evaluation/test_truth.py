"""Files of trained accuracies, of the real format and broken."""

import json
import random

import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import UsageError
from tvt_ray.evaluation.truth import read_ground_truth
from tvt_ray.spaces.autoformer import AutoFormerSpace
from tvt_ray.spaces.pit import PiTSpace

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
    entry = {"space": "pit", "arch": pit.to_json(arch), "params_100_classes": 7, "x_acc": 1.0}
    truths = read_ground_truth(write(tmp_path / "t.jsonl", [*lines, entry]), SPACE, 10)
    assert [truth.space for truth in truths] == [SPACE, pit]
    assert truths[1].entries[0].params == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": {"embed_dim": 7}}, "line 2"),
        ({"space": "deit"}, "unknown search space 'deit'; choices: autoformer, pit"),
        ({"space": ["pit"]}, "unknown search space"),
        ({"x_acc": None}, "x_acc is not in all"),
        ({"arch": 3}, "a line is an object"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, lines, change, message):
    lines[1] = {**lines[1], **change}
    with pytest.raises(UsageError, match=message):
        read_ground_truth(write(tmp_path / "t.jsonl", lines), SPACE, 10)


def test_a_repeated_architecture_is_refused(tmp_path, lines):
    with pytest.raises(UsageError, match=r"line 6 repeats the architecture of .*line 1"):
        read_ground_truth(write(tmp_path / "t.jsonl", [*lines, lines[0]]), SPACE, 10)


def test_the_published_table_is_read_whole(shared_data):
    for name, count in (("autoformer", 100), ("pit", 50)):
        (truth,) = read_ground_truth(shared_data / "vit_bench_101" / f"{name}_dev.jsonl", AutoFormerSpace(), 10)
        assert len(truth.entries) == count
        assert {"cifar100_kd_acc", "flowers_kd_acc", "chaoyang_kd_acc"} <= set(truth.columns)
