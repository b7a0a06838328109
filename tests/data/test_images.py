"""Every source of images, holding the same ones."""

import dataclasses
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.samples import encode, picture
from tvt_ray.data import images
from tvt_ray.data.images import ArrayImages, Decoding, EncodedImages, decode
from tvt_ray.errors import UsageError

PICTURES = [picture(seed) for seed in range(4)]


def arrays(folder):
    return ArrayImages(np.stack([np.asarray(image) for image in PICTURES]))


def encoded(folder):
    return EncodedImages([encode(image) for image in PICTURES], ["a", "b", "c", "d"])


def files(folder):
    for i, image in enumerate(PICTURES):
        image.save(folder / f"{i}.png")
    return EncodedImages([folder / f"{i}.png" for i in range(len(PICTURES))])


@pytest.fixture(params=[arrays, encoded, files])
def source(request, tmp_path):
    return request.param(tmp_path)


def test_images_are_numbered(source):
    assert len(source) == 4
    assert [source[i].tobytes() for i in range(4)] == [image.tobytes() for image in PICTURES]


def test_what_travels_holds_the_chosen_images_in_their_order(source):
    carried = source.portable(np.array([2, 0]))
    assert [carried[i].tobytes() for i in range(len(carried))] == [PICTURES[i].tobytes() for i in (2, 0)]


def test_a_fingerprint_changes_with_the_images(source):
    assert source.fingerprint() == source.fingerprint()
    assert source.fingerprint() != source.portable(np.array([2, 0])).fingerprint()


def test_a_fingerprint_is_of_contents_wherever_they_lie(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    os.utime(tmp_path / "there" / "0.png", (1, 1))
    assert here.fingerprint() == there.fingerprint() == encoded(tmp_path).fingerprint()
    assert here.fingerprint() == here.portable(np.arange(4)).fingerprint()
    picture(9).save(tmp_path / "there" / "2.png")
    assert EncodedImages(there.encoded).fingerprint() != here.fingerprint()


def test_a_fingerprint_is_of_pixels_too(tmp_path):
    """On another background the same files are other images; how large they may be changes none."""
    here = files(tmp_path)
    assert dataclasses.replace(here, decoding=Decoding((0, 0, 0))).fingerprint() != here.fingerprint()
    assert dataclasses.replace(here, decoding=Decoding(max_pixels=500)).fingerprint() == here.fingerprint()


def test_encoded_images_are_opened_and_named_without_being_decoded(tmp_path):
    assert not isinstance(arrays(tmp_path), EncodedImages)
    for each in (encoded(tmp_path), files(tmp_path)):
        assert isinstance(each, EncodedImages)
        with each.opened(1) as image:
            assert (image.size, image.format) == (PICTURES[1].size, "PNG")
        assert len(set(each.hashes)) == 4
    assert encoded(tmp_path).name(1) == "b"
    assert files(tmp_path).name(1) == str(tmp_path / "1.png")


def test_any_mode_becomes_upright_rgb():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    PICTURES[0].convert("LA").save(buffer, "PNG", exif=exif)
    (image,) = [EncodedImages([buffer.getvalue()], ["grey"])[0]]
    assert (image.mode, image.size) == ("RGB", PICTURES[0].size[::-1])


def test_what_is_transparent_shows_the_background_wherever_the_images_go(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "0.png")
    for decoding, colour in ((Decoding(), (255, 255, 255)), (Decoding((1, 2, 3)), (1, 2, 3))):
        source = EncodedImages([tmp_path / "0.png"], decoding=decoding)
        for each in (source, source.portable(np.array([0]))):
            assert each[0].getpixel((0, 0)) == colour


def test_a_broken_image_is_named(tmp_path):
    with pytest.raises(UsageError, match="corrupt image third"):
        EncodedImages([encode(PICTURES[0])[:40]], ["third"])[0]
    with pytest.raises(UsageError, match=r"absent\.png is listed but not there"):
        EncodedImages([tmp_path / "absent.png"])[0]
    with pytest.raises(UsageError, match=r"absent\.png is listed but not there"):
        EncodedImages([tmp_path / "absent.png"]).fingerprint()


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"corrupt image .*/caf\\xe9\.png: it is of no kind that PIL reads$"):
        EncodedImages([path])[0]


# Images of another size than usual ------------------------------------------------------------------------------------


def test_a_larger_image_than_is_allowed_is_one_line_with_the_setting():
    data = encode(PICTURES[0])  # 12 x 10
    message = r"image big has 12 x 10 pixels, more than data\.max_pixels allows \(119\).*--set data\.max_pixels=120"
    with pytest.raises(UsageError, match=message) as error:
        decode(data, "big", Decoding(max_pixels=119))
    assert "\n" not in str(error.value)
    assert decode(data, "big", Decoding(max_pixels=120)).size == (12, 10)


@pytest.fixture
def small_limits(monkeypatch):
    """PIL takes more than 1,000 pixels for unusual, and refuses more than 2,000."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(images, "PIL_PIXELS", 1000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_pil_refuses_is_read_where_the_setting_allows_it_and_made_smaller(kind, small_limits):
    data = encode(Image.new("RGB", (90, 80), (200, 40, 30)), kind)
    with pytest.raises(UsageError, match=r"image huge has 90 x 80 pixels, more than data\.max_pixels"):
        decode(data, "huge", Decoding(max_pixels=2000))
    image = decode(data, "huge", Decoding(max_pixels=8000))
    assert image.size == {"PNG": (30, 27), "JPEG": (23, 20)}[kind]  # by 3; by 2 while it is decoded and by 2
    assert np.abs(np.asarray(image, np.int64) - (200, 40, 30)).max() <= 3
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert image.crop((0, 0, 20, 20)).size == (20, 20)  # which PIL refuses of larger ones


def test_pils_limit_is_back_whatever_threads_do(small_limits):
    data = encode(Image.new("L", (60, 50)))
    errors = []

    def work(allowed):
        for _ in range(20):
            try:
                decode(data, "huge", Decoding(max_pixels=allowed))
            except UsageError as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(allowed,)) for allowed in (3000, 2999, 3000, 2999)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 40
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_usual_images_keep_their_size():
    assert decode(encode(PICTURES[0]), "usual").size == PICTURES[0].size
