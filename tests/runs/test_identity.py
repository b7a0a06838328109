import dataclasses
import json

import numpy as np
import pytest

from tvt_ray.errors import UsageError
from tvt_ray.proxies.probe import ProbeSettings, select_balanced
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity

PROBE = ProbeSettings(num_images=6)


@pytest.fixture
def identity(digits):
    return DataIdentity.of(digits, PROBE)


def test_it_says_which_images_and_which_of_them_are_the_probe(identity, digits):
    assert identity.fingerprint == digits.fingerprint()
    assert identity.class_names == digits.class_names
    assert identity.num_images == {"train": 1294, "val": 144, "test": 359}
    assert list(identity.probe) == select_balanced(digits.train.labels, 6, 0).tolist()


def test_it_is_read_back_as_it_was_written(identity, location):
    folder = RunFolder(location)
    assert DataIdentity.load(folder.data_file) is None
    folder.keep_data(identity)
    assert DataIdentity.load(folder.data_file) == identity
    folder.check_data(identity)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"class_names": ("a", "b")}, "its classes are a, b, and here 0, 1, 2"),
        ({"num_images": {"train": 1, "val": 144, "test": 359}}, "its train split has 1 images, and here it has 1,294"),
        ({"num_images": {}}, "its train split has 0 images"),
        ({"fingerprint": "x"}, "as many images, but some are others"),
        ({"probe": (1, 2)}, r"were read on other images of the training split \(the probe\)"),
    ],
)
def test_what_is_other_is_said(changed, told, identity, location):
    folder = RunFolder(location)
    folder.keep_data(dataclasses.replace(identity, **changed))
    with pytest.raises(UsageError, match=told) as error:
        folder.check_data(identity)
    assert "\n" not in str(error.value)


def test_where_the_images_lie_is_no_difference(identity):
    assert identity.difference(dataclasses.replace(identity, dataset="imagefolder:/elsewhere")) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"dataset": "d"}', '{"num_images": 3}'])
def test_a_damaged_file_is_one_line(content, tmp_path):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UsageError, match=r"data\.json is damaged \(.*which images the run is of") as error:
        DataIdentity.load(tmp_path / "data.json")
    assert "\n" not in str(error.value)


def test_it_is_json_of_plain_numbers(identity):
    stored = json.loads(identity.to_json())
    assert stored.keys() == {"dataset", "fingerprint", "class_names", "num_images", "probe"}
    assert all(type(index) is int for index in stored["probe"])


def test_a_probe_that_wants_more_images_than_there_are_is_refused(digits):
    few = dataclasses.replace(digits, train=digits.train.take(np.arange(5)))
    with pytest.raises(UsageError, match=r"probe\.num_images is 6, but there are only 5 training images"):
        DataIdentity.of(few, PROBE)
