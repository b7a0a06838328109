"""Images decoded once."""

import dataclasses
import os
import pickle
import time

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import encode, picture, write_class_folders
from tvt_ray.data import decoded
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.decoded import UNUSED_S, decode_once, image_facts, verify_images
from tvt_ray.data.images import ArrayImages, DecodedImages, EncodedImages
from tvt_ray.data.pixels import Decoding
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.errors import UsageError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tvt_ray" / "decoded"


def made(*images, kind="PNG", **options):
    """A dataset of these images, all in one source."""
    source = EncodedImages(
        [encode(image, kind, **options) for image in images], [f"image {i}" for i in range(len(images))]
    )
    split = Split.whole(source, [0] * len(images))
    return Dataset("made", split, split, split, ("a",))


def pixels(split):
    return [np.asarray(split[i][0]) for i in range(len(split))]


def test_small_images_stay_as_they_are(cache):
    images = [picture(0, (12, 10)), picture(1, (10, 40)), picture(2, (50, 11))]
    data = decode_once(made(*images), largest_size=16)
    assert isinstance(data.train.source, DecodedImages)
    assert all(np.array_equal(a, b) for a, b in zip(pixels(data.train), map(np.asarray, images), strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_ones_are_a_little_larger_than_what_networks_see(cache, kind):
    """An image of one smooth gradient, which is the same at any size."""
    ramp = np.linspace(0, 255, 400)[None, :, None].repeat(300, 0).repeat(3, 2).astype(np.uint8)
    data = decode_once(made(Image.fromarray(ramp), kind=kind), largest_size=56)
    (image,) = pixels(data.train)
    assert image.shape == (64, 85, 3)
    expected = np.linspace(0, 255, 85)
    assert np.abs(image.mean((0, 2)) - expected).max() < 3


def test_photos_lie_as_they_were_held(cache):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    (image,) = pixels(decode_once(made(picture(3, (200, 100)), kind="JPEG", exif=exif), largest_size=28).train)
    assert image.shape == (64, 32, 3)


def test_splits_of_one_source_share_its_pixels_and_keep_their_images(cache, tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    before = load_dataset(DataSettings(name=f"imagefolder:{folder}"))
    after = decode_once(before, largest_size=32)
    assert after.train.source is after.val.source is after.test.source
    for name, split in before.splits.items():
        assert after.splits[name].labels.tolist() == split.labels.tolist()
        assert all(np.array_equal(a, b) for a, b in zip(pixels(split), pixels(after.splits[name]), strict=True))
    assert after.fingerprint() == before.fingerprint()


def test_what_is_decoded_is_not_decoded_again_whoever_asks(cache, monkeypatch):
    images = [picture(i) for i in range(5)]
    first = decode_once(made(*images), largest_size=16)
    monkeypatch.setattr(decoded, "look_at", lambda *args, **kwargs: pytest.fail("was decoded again"))
    again = decode_once(made(*images), largest_size=16)
    assert all(np.array_equal(a, b) for a, b in zip(pixels(first.train), pixels(again.train), strict=True))
    assert len(list(cache.iterdir())) == 2


def test_other_images_another_size_or_background_are_decoded_anew(cache):
    data = made(picture(0, (60, 60)))
    decode_once(data, largest_size=16)
    decode_once(data, largest_size=24)
    decode_once(made(picture(1, (60, 60))), largest_size=16)
    grey = dataclasses.replace(
        data.train.source, decoding=dataclasses.replace(data.train.source.decoding, background=(9, 9, 9))
    )
    other = dataclasses.replace(data.train, source=grey)
    decode_once(dataclasses.replace(data, train=other, val=other, test=other), largest_size=16)
    assert len(list(cache.glob("*.npz"))) == 4


@pytest.mark.parametrize("damaged", [lambda data: data[:-1], lambda data: bytes(len(data))], ids=["short", "zeros"])
def test_a_file_that_was_damaged_is_made_again(cache, damaged):
    """Zeros are what a power failure leaves of it."""
    images = [picture(i) for i in range(5)]
    decode_once(made(*images), largest_size=16)
    (file,) = cache.glob("*.pixels")
    file.write_bytes(damaged(file.read_bytes()))
    for _ in range(2):  # the second time from the file
        data = decode_once(made(*images), largest_size=16)
        assert all(np.array_equal(a, b) for a, b in zip(pixels(data.train), map(np.asarray, images), strict=True))
    assert file.read_bytes() == b"".join(np.asarray(image).tobytes() for image in images)


def test_one_damaged_image_is_decoded_again_where_it_is_read(cache):
    """Also into what goes to other machines; the others are read from the file."""
    images = [picture(i, (60, 60)) for i in range(5)]
    source = decode_once(made(*images), largest_size=16).train.source
    whole = [np.asarray(source[i]) for i in range(5)]
    (file,) = cache.glob("*.pixels")
    content = bytearray(file.read_bytes())
    third = slice(2 * whole[0].nbytes, 3 * whole[0].nbytes)
    content[third] = bytes(whole[0].nbytes)
    file.write_bytes(bytes(content))
    source = decode_once(made(*images), largest_size=16).train.source
    assert not np.any(source.pixels[third])  # nothing was decoded yet
    sent = pickle.loads(pickle.dumps(source.portable(np.array([2, 0]))))
    assert np.array_equal(np.asarray(sent[0]), whole[2])
    assert np.array_equal(np.asarray(sent[1]), whole[0])
    assert np.array_equal(np.asarray(source[2]), whole[2])


def test_what_nobody_used_for_months_is_removed_when_others_are_decoded(cache):
    for first in (0, 10):
        decode_once(made(*[picture(first + i) for i in range(5)]), largest_size=16)
    old, used = sorted(cache.glob("*.npz"), key=lambda path: path.stat().st_mtime)
    long_ago = time.time() - UNUSED_S - 10
    for index in (old, used):
        os.utime(index, (long_ago, long_ago))
    decode_once(made(*[picture(10 + i) for i in range(5)]), largest_size=16)  # looks at it once more
    decode_once(made(*[picture(20 + i) for i in range(5)]), largest_size=16)
    assert not old.exists()
    assert not old.with_suffix(".pixels").exists()
    assert used.exists()
    assert len(list(cache.glob("*.pixels"))) == 2


def test_a_corrupt_image_is_named_and_nothing_is_left(cache):
    data = made(*[picture(i) for i in range(20)])
    data.train.source.encoded[13] = data.train.source.encoded[13][:40]
    with pytest.raises(UsageError, match="corrupt image image 13"):
        decode_once(data, largest_size=16)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("reason", ["no folder", "no room"])
def test_without_room_images_are_decoded_as_they_are_asked_for(cache, reason, tmp_path, monkeypatch, capsys):
    if reason == "no folder":
        (tmp_path / "cache").touch()
    else:
        monkeypatch.setattr(decoded, "RESERVE", 0.0)
    data = made(picture(0))
    assert decode_once(data, largest_size=16).train.source is data.train.source
    assert "decoded images are not kept in" in capsys.readouterr().err


def test_portable_images_need_no_file(cache):
    images = [picture(i, (12 + i, 10)) for i in range(5)]
    data = decode_once(made(*images), largest_size=16)
    moved = pickle.loads(pickle.dumps(data.train.take(np.array([3, 1])).portable()))
    for path in cache.iterdir():
        path.unlink()
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(pixels(moved), (images[3], images[1]), strict=True))
    assert type(moved.source.pixels) is np.ndarray


def test_images_that_are_arrays_stay_where_they_are(cache, digits):
    assert decode_once(digits, largest_size=32).train.source is digits.train.source
    assert not cache.exists()


def mixed(count=12):
    """Photos and drawings of which some are decoded at other scales for their facts than for their pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    sizes = [(90, 60), (400, 300), (1300, 700), (2400, 2100)]
    images = [(picture(i, sizes[i % 4]), ("JPEG", "PNG", "WEBP")[i % 3]) for i in range(count)]
    source = EncodedImages(
        [encode(image, kind, exif=exif) for image, kind in images], [f"image {i}" for i in range(count)]
    )
    whole = Split.whole(source, [0] * count)
    train, rest = whole.take(np.arange(1, count, 2)), whole.take(np.arange(0, count, 2))
    return Dataset("made", train, rest, rest, ("a",))


@pytest.mark.night
@pytest.mark.slow
def test_one_pass_gives_facts_and_the_pixels_that_a_run_decodes(cache, tmp_path, monkeypatch):
    expected = [pixels(split) for split in decode_once(mixed(), largest_size=64).splits.values()]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "facts alone"))
    facts = image_facts(mixed())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "both"))
    assert image_facts(mixed(), largest_size=64) == facts
    monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("was decoded again"))
    assert image_facts(mixed(), largest_size=64) == image_facts(mixed()) == facts
    again = [pixels(split) for split in decode_once(mixed(), largest_size=64).splits.values()]
    for mine, theirs in zip(again, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_first_corrupt_image_is_that_of_the_first_split(cache):
    data = mixed(8)
    for number in (2, 5):
        data.train.source.encoded[number] = data.train.source.encoded[number][:300]
    with pytest.raises(UsageError, match="corrupt image image 5"):
        image_facts(data, largest_size=64)
    with pytest.raises(UsageError, match="corrupt image image 2"):
        decode_once(data, largest_size=64)


# Checks ----------------------------------------------------------------------------------------------------


def made_of(*encoded):
    """A dataset of these images, in each split."""
    split = Split.whole(EncodedImages(encoded, [f"image {i}" for i in range(len(encoded))]), [0] * len(encoded))
    return Dataset("made", split, split, split, ("a",))


def test_a_whole_dataset_is_decoded_once(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    opened = []
    monkeypatch.setattr(Image, "open", lambda *args: opened.append(args) or 1 / 0)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    assert not opened


def test_a_smaller_limit_is_checked_anew(tmp_path):
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))
    with pytest.raises(UsageError, match=r"--set data\.max_pixels=120"):
        verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}", max_pixels=100)))


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = write_class_folders(tmp_path / "d", ["a", "b"], 10)
    verify_images(load_dataset(DataSettings(name=f"imagefolder:{folder}")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_file_that_ends_too_early_is_found_at_any_size(kind, share):
    """JPEG is decoded at an eighth of its size here."""
    image = picture(7, (200, 150))
    data = encode(image if kind != "GIF" else image.quantize(), kind)
    with pytest.raises(UsageError, match="corrupt image image 1: "):
        verify_images(made_of(encode(picture(8), "PNG"), data[: int(len(data) * share)]))
    verify_images(made_of(data))


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_jpeg_of_any_make_is_found_broken(options):
    for mode in ("RGB", "L", "CMYK"):
        data = encode(picture(7, (400, 300)).convert(mode), "JPEG", **options)
        verify_images(made_of(data))
        with pytest.raises(UsageError, match="truncated"):
            verify_images(made_of(data[: len(data) * 2 // 3]))


def test_images_in_memory_are_whole():
    split = Split.whole(ArrayImages(np.zeros((3, 4, 4, 3), np.uint8)), [0, 0, 0])
    verify_images(Dataset("made", split, split, split, ("a",)))


def test_what_is_larger_than_allowed_is_one_line():
    source = EncodedImages([encode(picture(3))], ["big"], Decoding(max_pixels=100))
    split = Split.whole(source, [0])
    with pytest.raises(UsageError, match=r"image big has 12 x 10 pixels, more than data\.max_pixels allows"):
        verify_images(Dataset("made", split, split, split, ("a",)))
