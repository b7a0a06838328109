"""Every source of images, holding the same ones; and what identifies them."""

import dataclasses
import hashlib
import io
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.samples import encode, picture
from tvt_ray.data import pixels
from tvt_ray.data.images import ArrayImages, EncodedImages, bytes_hash, file_hashes
from tvt_ray.data.pixels import Decoding, decode
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
    with pytest.raises(UsageError, match=r"corrupt image .*/caf\\xe9\.png: it is none of JPEG, .*$"):
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
    monkeypatch.setattr(pixels, "PIL_PIXELS", 1000)


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


LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def old_files(tmp_path):
    """Two files that were last changed long ago."""
    (tmp_path / "d").mkdir()
    paths = [tmp_path / "d" / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (LONG_AGO, LONG_AGO))
    return paths


def swap_content(path, content):
    """Changes the bytes, and neither their number nor the time."""
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_a_hash_is_sha256_of_the_content(old_files):
    assert file_hashes(old_files) == [hashlib.sha256(name).hexdigest() for name in (b"a", b"b")]
    assert file_hashes(old_files[:1]) == [bytes_hash(b"a")]
    assert file_hashes([]) == []


def test_an_unchanged_file_is_not_read_twice(old_files):
    """Its content is changed behind the back of its size and its modification time."""
    before = file_hashes(old_files)
    swap_content(old_files[0], b"x")
    assert file_hashes(old_files) == before
    os.utime(old_files[0], (LONG_AGO, LONG_AGO + 1))
    assert file_hashes(old_files) == [bytes_hash(b"x"), before[1]]


def test_a_file_of_another_size_is_read_again(old_files):
    file_hashes(old_files)
    swap_content(old_files[0], b"longer")
    assert file_hashes(old_files)[0] == bytes_hash(b"longer")


def test_a_file_that_was_changed_just_now_is_not_trusted_later(old_files):
    """Within the clock's grain it may change again under the same modification time."""
    old_files[0].write_bytes(b"y")
    stat = old_files[0].stat()
    assert file_hashes(old_files)[0] == bytes_hash(b"y")
    old_files[0].write_bytes(b"z")
    os.utime(old_files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_hashes(old_files)[0] == bytes_hash(b"z")


def test_a_relative_path_is_of_the_folder_that_one_is_in(old_files, tmp_path, monkeypatch):
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "a").write_bytes(b"x")
    os.utime(tmp_path / "e" / "a", (LONG_AGO, LONG_AGO))
    for folder, content in (("d", b"a"), ("e", b"x"), ("d", b"a")):
        monkeypatch.chdir(tmp_path / folder)
        assert file_hashes([Path("a")]) == [bytes_hash(content)]


def test_a_copy_elsewhere_has_the_same_hash(old_files, tmp_path):
    (tmp_path / "other").write_bytes(old_files[0].read_bytes())
    assert file_hashes([tmp_path / "other"]) == file_hashes(old_files[:1])


def test_a_file_that_is_missing_or_unreadable_is_named(old_files, tmp_path):
    with pytest.raises(UsageError, match=r"image .*/absent\.png is listed but not there"):
        file_hashes([*old_files, tmp_path / "absent.png"])
    with pytest.raises(UsageError, match=r"image .*/d is no file"):
        file_hashes([tmp_path / "d"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 3}', '{"a": ["x", "y", "z"]}'])
def test_a_damaged_memory_is_none(old_files, cache, content):
    before = file_hashes(old_files)
    (memory,) = (cache / "tvt_ray" / "hashes").iterdir()
    assert len(json.loads(memory.read_text())) == 2
    memory.write_text(content)
    assert file_hashes(old_files) == before


def test_a_cache_that_cannot_be_written_stops_nothing(old_files, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert file_hashes(old_files) == [bytes_hash(b"a"), bytes_hash(b"b")]


def test_names_that_are_no_text_are_remembered_too(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.write_bytes(b"a")
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert file_hashes([path]) == file_hashes([path]) == [bytes_hash(b"a")]


def test_an_image_is_what_its_content_says_and_no_program_is_started_for_it(tmp_path, monkeypatch):
    """PIL would give an EPS to Ghostscript, whatever its name."""
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"
    (tmp_path / "photo.jpg").write_bytes(eps)
    for given in (eps, tmp_path / "photo.jpg"):
        with pytest.raises(UsageError, match=r"corrupt image photo\.jpg: it is none of JPEG, PNG"):
            decode(given, "photo.jpg")
    assert not (tmp_path / "started").exists()


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "photo.jpg")
    with pytest.raises(UsageError, match=r"image .*photo\.jpg is no file"):
        decode(tmp_path / "photo.jpg", "photo.jpg")
    with pytest.raises(UsageError, match=r"image .*photo\.jpg is no file"):
        file_hashes([tmp_path / "photo.jpg"])
