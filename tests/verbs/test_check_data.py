import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import picture, write_class_folders
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.survey import image_size
from tvt_ray.errors import UsageError
from tvt_ray.planning.recipe import look_at
from tvt_ray.verbs.check_data import Imbalance, describe_data


def describe(folder, **kwargs):
    return describe_data(DataSettings(name=f"imagefolder:{folder}"), 32, **kwargs)


def test_everything_is_said_that_a_long_run_would_stumble_over(tmp_path):
    for number, (split, name, count) in enumerate(
        [("train", "a", 9), ("train", "b", 3), ("Testing", "a", 1), ("Testing", "b", 3)]
    ):
        (tmp_path / split / name).mkdir(parents=True)
        for i in range(count):
            picture(100 * number + i, (64 + i, 80)).save(tmp_path / split / name / f"{i}.png")
    Image.new("L", (90, 90), 7).save(tmp_path / "train" / "a" / "flat.png")
    picture(0, (64, 80)).save(tmp_path / "Testing" / "b" / "copy.png")
    (tmp_path / "unlabeled").mkdir()
    found = describe(tmp_path, out=tmp_path / "out")
    assert found.num_classes == 2
    assert found.num_images == {"train": 10, "val": 3, "test": 5}
    assert sum(found.classes["a"].values()) == 11
    assert found.origins == {"train": "train/", "test": "Testing/", "val": "carved: 10% of the training images"}
    assert found.notes[0] == "folder unlabeled left out: its name says no split"
    assert found.imbalance == Imbalance("a", "b", 4.0, {"train": 80.0, "val": 66.67, "test": 80.0})
    assert found.images.sizes.smallest == (64, 80)
    assert found.images.sizes.largest == (90, 90)
    assert found.images.modes == {"RGB": 17, "L": 1}
    assert (found.images.single_value.num_images, found.images.single_value.example) == (1, "train/a/flat.png")
    assert found.duplicates.between_splits.example == ("train/a/0.png", "Testing/b/copy.png")
    assert found.images.recommended_image_size == 128
    assert found.contact_sheets == (f"{tmp_path}/out/contact_sheet.png",)
    assert Image.open(found.contact_sheets[0]).format == "PNG"
    assert json.loads(json.dumps(dataclasses.asdict(found)))["images"]["sizes"]["smallest"] == [64, 80]


def test_without_a_folder_nothing_is_drawn(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    assert describe(folder).contact_sheets == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_a_broken_image_is_named(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    (folder / "b" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"corrupt image .*b/3\.png"):
        describe(folder)


def test_data_in_memory_is_described_too():
    found = describe_data(DataSettings(), 32)
    assert found.num_images == {"train": 1294, "val": 144, "test": 359}
    assert found.origins.keys() == {"val", "test"}
    assert found.images.modes == {"RGB": 1797}
    assert np.isclose(found.imbalance.ratio, 131 / 125, atol=0.01)


@pytest.mark.parametrize("sides", [[20] * 9 + [90] * 11, [90] * 12 + [40] * 8, [50] * 20])
def test_the_recommended_image_size_is_the_recipes(sides, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number, side in enumerate(sides):
            picture(number, (side, 100)).save(tmp_path / name / f"{number}.png")
    looked_at = look_at({"data": {"name": f"imagefolder:{tmp_path}"}})
    image_size_here = looked_at.config.space.image_size
    found = describe_data(looked_at.config.data, image_size_here).images
    assert found.recommended_image_size == image_size_here
    assert found.image_size_with_gpu == image_size(looked_at.facts.side, has_gpu=True)
