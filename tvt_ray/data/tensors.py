"""Images that a table holds as numbers: NumPy's, nested lists, Arrow's and Ray Data's tensors, Spark's structs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

NPY = b"\x93NUMPY"  # how a file of np.save begins
SPARK = {"height", "width", "nChannels", "data"}  # fields of the struct of Spark's image source
CHANNELS = (1, 3, 4)
_NAME, _METADATA = b"ARROW:extension:name", b"ARROW:extension:metadata"
_RAY = b"ray.data.arrow_"  # how the names of Ray Data's types begin


def encoder(field: pa.Field) -> Callable[[Any], bytes] | None:
    """What turns a value of a column, as Python has it, into the bytes of an image; None: the column holds no numbers.

    That raises ValueError where a value is no image.
    """
    kind, metadata = field.type, field.metadata or {}
    if isinstance(kind, pa.FixedShapeTensorType):
        shape = tuple(kind.shape)
        return lambda value: encode(np.reshape(value, shape))
    if isinstance(kind, pa.BaseExtensionType):  # whoever has imported Ray Data has its types, others their metadata
        metadata = {_NAME: kind.extension_name.encode(), _METADATA: kind.__arrow_ext_serialize__()}
    if metadata.get(_NAME, b"").startswith(_RAY):
        return _of_ray(metadata)
    if pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} >= SPARK:
        return _of_spark
    if any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return lambda value: encode(_square(np.asarray(value)))
    return None


def as_image(pixels: NDArray[Any]) -> Image.Image:
    """(H, W), (H, W, C) or (C, H, W) whole numbers from 0 to 255, of 1, 3 or 4 channels. Raises ValueError."""
    if pixels.dtype == object or pixels.ndim not in (2, 3):
        raise ValueError(f"an image is (height, width) or (height, width, channels); got {pixels.shape}")
    if pixels.dtype.kind not in "ui" or pixels.size == 0 or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"pixels are whole numbers from 0 to 255; got {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] not in CHANNELS and pixels.shape[0] in CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] not in CHANNELS:
        raise ValueError(f"an image has 1, 3 or 4 channels; got the shape {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels, np.uint8))


def encode(pixels: NDArray[Any]) -> bytes:
    """PNG of pixels as `as_image` takes them. Raises ValueError."""
    sink = io.BytesIO()
    as_image(pixels).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def encoded(content: bytes) -> bytes:
    """The bytes of an image file as they are; those of np.save as PNG. Raises ValueError."""
    if not content.startswith(NPY):
        return content
    return encode(np.load(io.BytesIO(content), allow_pickle=False))


def _square(values: NDArray[Any]) -> NDArray[Any]:
    """A flat list of grey values, as MNIST's, as a square; what has a shape stays."""
    if values.ndim != 1:
        return values
    side = math.isqrt(len(values))
    if side * side != len(values):
        raise ValueError(f"a flat list of {len(values)} numbers has no shape: nested lists have one, or encoded images")
    return values.reshape(side, side)


def _of_spark(value: Mapping[str, Any]) -> bytes:
    """OpenCV's order of channels: blue, green, red, alpha."""
    shape = (value["height"], value["width"], value["nChannels"])
    pixels = np.frombuffer(value["data"], np.uint8).reshape(shape)
    return encode(pixels if shape[2] == 1 else pixels[..., [2, 1, 0, *range(3, shape[2])]])


def _of_ray(metadata: Mapping[bytes, bytes]) -> Callable[[Any], bytes]:
    """Of one shape, which the type has, or of many, which each value has."""
    shape = None if b"variable" in metadata[_NAME] else tuple(json.loads(metadata[_METADATA]))

    def encode_one(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            return encode(value)
        return encode(np.reshape(value["data"], value["shape"]) if shape is None else np.reshape(value, shape))

    return encode_one
