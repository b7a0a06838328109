"""The table of datasets."""

import pytest

from tests.data.samples import check_splits, write_class_folders
from tvt_ray.data.datasets import DATASETS, describe_datasets, load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'.*imagefolder:PATH"),
        ("imagefolder", "imagefolder:PATH"),
        ("imagefolder:/no/such/place", "there is no /no/such/place"),
        ("digits:/tmp", "takes no path"),
    ],
)
def test_wrong_names_are_refused_with_the_choices(name, message):
    assert "digits" in DATASETS
    with pytest.raises(UsageError, match=message):
        load_dataset(DataSettings(name=name))


def test_names_are_described_as_people_write_them():
    assert [name.removesuffix(":PATH") for name in describe_datasets()] == list(DATASETS)
    assert {name for name in describe_datasets() if name.endswith(":PATH")} == {"imagefolder:PATH", "parquet:PATH"}


def test_splits_that_are_not_there_are_carved_as_the_settings_say(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 20)
    settings = DataSettings(name=f"imagefolder:{folder}", test_fraction=0.5, val_fraction=0.25)
    data = load_dataset(settings)
    check_splits(data, 15, 5, 20)
    assert data.name == settings.name
    assert data.num_classes == 2
