"""tvt search's own part; what searches give is in tests/cluster/."""

import re

import pytest

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
