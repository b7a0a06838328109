import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import encode, picture, write_class_folders
from tvt_ray.data import verify
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.images import ArrayImages, Decoding, EncodedImages
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Dataset, Split
from tvt_ray.data.verify import PixelBudget, look_at_all, verify_images
from tvt_ray.errors import UsageError


def made(*encoded):
    """A dataset of these images, in each split, so that it can be told from others."""
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
        verify_images(made(encode(picture(8), "PNG"), data[: int(len(data) * share)]))
    verify_images(made(data))


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_jpeg_of_any_make_is_found_broken(options):
    for mode in ("RGB", "L", "CMYK"):
        data = encode(picture(7, (400, 300)).convert(mode), "JPEG", **options)
        verify_images(made(data))
        with pytest.raises(UsageError, match="truncated"):
            verify_images(made(data[: len(data) * 2 // 3]))


def test_images_in_memory_are_whole():
    split = Split.whole(ArrayImages(np.zeros((3, 4, 4, 3), np.uint8)), [0, 0, 0])
    verify_images(Dataset("made", split, split, split, ("a",)))


def test_every_image_is_looked_at_in_order(monkeypatch):
    monkeypatch.setattr(verify, "CHUNK", 3)
    splits = [Split.whole(range(n), np.arange(n)) for n in (10, 0, 4)]
    found = look_at_all(splits, lambda split, index: (len(split), index), "looking")
    assert found == [[(10, i) for i in range(10)], [], [(4, i) for i in range(4)]]


def test_the_first_exception_ends_the_looking():
    with pytest.raises(ZeroDivisionError):
        look_at_all([Split.whole(range(9), np.arange(9))], lambda split, index: 1 / (index - 5), "looking")


def test_no_more_pixels_are_decoded_at_a_time_than_the_budget_has():
    budget, lock, held, peak = PixelBudget(100), threading.Lock(), [0], [0]

    def work(num_pixels):
        with budget.taking(num_pixels):
            with lock:
                held[0] += num_pixels
                peak[0] = max(peak[0], held[0])
            time.sleep(0.001)
            with lock:
                held[0] -= num_pixels

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [40, 60, 30, 99] * 20))
    assert 60 < peak[0] <= 100


def test_an_image_beyond_the_budget_goes_alone_and_what_is_taken_is_given_back():
    budget, alone = PixelBudget(100), threading.Event()
    with budget.taking(1000):
        waiting = threading.Thread(target=lambda: [alone.set() for _ in [0] if budget.taking(1).__enter__() is None])
        waiting.start()
        assert not alone.wait(0.05)
    assert alone.wait(5)
    waiting.join()
    with pytest.raises(ZeroDivisionError), PixelBudget(5).taking(5):
        raise ZeroDivisionError


def test_what_is_larger_than_allowed_is_one_line():
    source = EncodedImages([encode(picture(3))], ["big"], Decoding(max_pixels=100))
    split = Split.whole(source, [0])
    with pytest.raises(UsageError, match=r"image big has 12 x 10 pixels, more than data\.max_pixels allows"):
        verify_images(Dataset("made", split, split, split, ("a",)))
