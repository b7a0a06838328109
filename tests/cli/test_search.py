"""tvt search's own part; what searches give is in tests/cluster/."""

import re

import pytest

from tests.conftest import call
from tvt_ray.cli.search import _run_name
from tvt_ray.runs.config import load_config


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("digits", "autoformer_digits"),
        ("imagefolder:/home/me/my photos/", "autoformer_imagefolder_my_photos"),
        ("parquet:/data/cifar10/train.parquet", "autoformer_parquet_train.parquet"),
    ],
)
def test_a_run_is_called_by_its_space_its_dataset_and_the_time(dataset, name):
    config = load_config(None, [{"data": {"name": dataset}}])
    assert re.fullmatch(rf"{re.escape(name)}_\d{{8}}-\d{{6}}", _run_name(config))


def test_a_plan_is_refused_for_what_its_trainings_would_be(capsys):
    flags = ["--set", "space.name=pit", "--set", "distill.positions=sine", "--dry-run"]
    code, out, err = call(capsys, "search", *flags, "--distill-top-k", "1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pit has a map of positions" in err
