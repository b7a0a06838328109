"""Images that a table holds as numbers, as NumPy, pandas, Hugging Face, Ray Data and Spark write them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import check_splits, load, picture
from tvt_ray.data.tensors import encode

NUM = 20
PICTURES = [np.asarray(picture(number)) for number in range(NUM)]  # (10, 12, 3)
LABELS = [number % 2 for number in range(NUM)]


def saved(array):
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def spark(array):
    height, width, channels = array.shape
    bgr = np.ascontiguousarray(array[..., ::-1]).tobytes()
    return {"origin": "file:/a", "height": height, "width": width, "nChannels": channels, "mode": 16, "data": bgr}


COLUMNS = {
    "nested lists": pa.array([each.tolist() for each in PICTURES], pa.list_(pa.list_(pa.list_(pa.uint8())))),
    "channels first": pa.array([each.transpose(2, 0, 1).tolist() for each in PICTURES]),
    "np.save": pa.array([saved(each) for each in PICTURES]),
    "Arrow's tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(PICTURES)),
    "Spark's structs": pa.array([spark(each) for each in PICTURES]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_pixels_are_those_that_were_written(tmp_path, kind):
    pq.write_table(pa.table({"image": COLUMNS[kind], "label": LABELS}), tmp_path / "train.parquet")
    data = load("parquet", tmp_path)
    check_splits(data, 14, 2, 4)
    for split in data.splits.values():
        for position, index in enumerate(split.indices):
            assert np.array_equal(np.asarray(split[position][0]), PICTURES[index])


@pytest.mark.parametrize("sizes", ["one size", "many sizes"])
def test_what_ray_data_writes_is_read(tmp_path, sizes):
    """Its own types of tensors, of one shape and of many, by its own writer's storage and metadata."""
    tensors = pytest.importorskip("ray.data._internal.tensor_extensions.arrow")
    pictures = PICTURES if sizes == "one size" else [np.asarray(picture(i, (12 + i % 3, 10))) for i in range(NUM)]
    kind = tensors.ArrowTensorArray if sizes == "one size" else tensors.ArrowVariableShapedTensorArray
    column = kind.from_numpy(np.stack(pictures) if sizes == "one size" else np.array([*pictures, None], object)[:-1])
    pq.write_table(pa.table({"image": column, "label": LABELS}), tmp_path / "train.parquet")
    data = load("parquet", tmp_path)
    assert np.array_equal(np.asarray(data.train[0][0]), pictures[data.train.indices[0]])


def test_flat_grey_values_are_a_square(tmp_path):
    column = pa.array([each[:8, :8, 0].ravel().tolist() for each in PICTURES])
    pq.write_table(pa.table({"image": column, "label": LABELS}), tmp_path / "train.parquet")
    data = load("parquet", tmp_path)
    assert np.array_equal(np.asarray(data.train[0][0])[..., 0], PICTURES[data.train.indices[0]][:8, :8, 0])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 3, 4, 5), int),
        np.zeros((5, 5, 2), int),
        np.full((4, 4), -1),
        np.zeros((4, 4)),
        np.zeros((0, 3), int),
    ],
)
def test_what_is_no_image_is_refused(pixels):
    with pytest.raises(ValueError, match=r"an image|pixels are whole numbers from 0 to 255"):
        encode(pixels)
