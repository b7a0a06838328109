"""Small images in the formats that datasets come in, and what every dataset promises of its splits."""

import io
import itertools

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.errors import UsageError


def picture(seed, size=(12, 10)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_class_folders(path, names, count):
    for label, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture(100 * label + i).save(path / name / f"{i}.png")
    return path


def labelled(labels, metadata=None, struct=True, label_type=None, seed=0):
    """A table of pictures with these labels, as in a Parquet file. Other seeds have other pictures."""
    images = [encode(picture(seed + i)) for i in range(len(labels))]
    column = pa.array([{"bytes": b, "path": None} for b in images] if struct else images)
    made = pa.table({"image": column, "label": pa.array(labels, label_type)})
    return made.replace_schema_metadata(metadata)


def check_splits(data, num_train, num_val, num_test):
    """Sizes as expected, every class in every split, and no image in two of them."""
    splits = (data.train, data.val, data.test)
    assert [len(split) for split in splits] == [num_train, num_val, num_test]
    for split in splits:
        assert set(split.labels) == set(range(data.num_classes))
    for one, other in itertools.combinations(splits, 2):
        assert one.source is not other.source or not set(one.indices) & set(other.indices)
    seen = [image.tobytes() for split in splits for image, _ in (split[i] for i in range(len(split)))]
    assert len(seen) == num_train + num_val + num_test


def load(kind, path, **settings):
    """A dataset of one's own, `imagefolder` or `parquet`."""
    return load_dataset(DataSettings(name=f"{kind}:{path}", **settings))


def refused(kind, path, **settings):
    """The one line that says why it is."""
    with pytest.raises(UsageError) as error:
        load(kind, path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)
