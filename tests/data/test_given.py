"""What somebody gives as an image: paths, patterns, folders, addresses, standard input, arrays, tensors."""

import functools
import http.server
import io
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import fs as pafs

from tests.data.samples import encode, picture
from tvt_ray.data.given import as_images, images_at
from tvt_ray.data.pixels import DECODING
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import RemotePath


def names(*places):
    return [each.name for each in images_at(places)[0]]


def pixels(given):
    return [np.asarray(each.decoded(DECODING)) for each in as_images(given)]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three images in two folders, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.png", "b.png", "in/c.jpg")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("")
    return tmp_path / "photos"


@pytest.fixture
def address(photos):
    """Of a server of the web on this machine that has the photos."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=photos)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_pattern_names_what_it_matches(photos):
    assert names("photos/*") == ["photos/a.png", "photos/b.png", "photos/in/c.jpg"]  # the folder as a folder is
    assert names("photos/**/*.jpg") == ["photos/in/c.jpg"]
    assert names("photos/**") == ["photos/a.png", "photos/b.png", "photos/in/c.jpg"]  # each once
    assert names("photos/[ab].png", "photos/a.png") == ["photos/a.png", "photos/b.png", "photos/a.png"]
    (photos / "[x].png").write_bytes(encode(picture(0)))
    assert names("photos/[x].png") == ["photos/[x].png"]  # a file of that name comes first


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("photos/*.gif", r"the pattern photos/\*\.gif matches nothing"),
        ("photos/*.txt", r"the pattern photos/\*\.txt matches 1 names, none of them an image"),
        ("photos/aa.png", r"there is no photos/aa\.png; .*photos has a\.png"),
        ("nowhere/a.png", r"there is no nowhere/a\.png"),
        ("", "a path is empty"),
        ("ftp2://there/a.png", "are read"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_read(photos, place, said):
    with pytest.raises(UsageError, match=said) as failure:
        images_at([place])
    assert "\n" not in str(failure.value)


def test_archives_are_named_with_what_unpacks_them(photos):
    (photos / "all.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"all\.zip is no image; all\.zip holds images packed: unzip "):
        images_at(["photos/all.zip"])
    (photos / "new").mkdir()
    (photos / "all.zip").rename(photos / "new" / "all.zip")
    with pytest.raises(UsageError, match=r"new holds no images; all\.zip holds images packed: unzip "):
        images_at(["photos/new"])


def test_images_of_a_kind_that_is_not_read_are_counted(photos):
    for name in ("1.dng", "2.dng", "3.svg"):
        (photos / name).write_bytes(b"")
    images, (note,) = images_at(["photos"])
    assert len(images) == 3
    assert (
        note
        == "photos: left out; 2 .dng (raw photos: write them as JPEG); 1 .svg (they are drawings: write them as PNG)"
    )


def test_an_address_is_read_when_it_is_its_turn(address, photos):
    (wanted,), _ = images_at([f"{address}/a.png"])
    assert wanted.name == f"{address}/a.png"
    assert wanted.decoded(DECODING).tobytes() == picture(0).tobytes()
    (gone,), _ = images_at([f"{address}/none.png"])
    with pytest.raises(UsageError, match=r"none\.png cannot be read: 404 File not found"):
        gone.decoded(DECODING)
    (page,), _ = images_at([f"{address}/notes.txt"])
    with pytest.raises(UsageError, match=r"corrupt image http.*notes\.txt"):
        page.decoded(DECODING)
    (nobody,), _ = images_at(["http://127.0.0.1:1/a.png"])
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1/a\.png cannot be read: .*refused"):
        nobody.decoded(DECODING)
    with pytest.raises(UsageError, match=r"http://there/a\.png was given with a key or a password") as failure:
        images_at(["http://me:hidden@there/a.png"])
    assert "hidden" not in str(failure.value)


def test_an_address_that_leads_to_a_file_of_this_machine_is_not_followed(photos):
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"file://{photos}/a.png")
            self.end_headers()

        def log_message(self, *args):
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (wanted,), _ = images_at([f"http://127.0.0.1:{server.server_port}/a.png"])
        with pytest.raises(UsageError, match="cannot be read: 302"):
            wanted.decoded(DECODING)
        server.shutdown()


def test_standard_input_is_one_image(monkeypatch):
    def given(data, is_terminal=False):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: is_terminal))
        return images_at(["-"])[0][0]

    wanted = given(encode(picture(3)))
    assert wanted.name == "-"
    assert wanted.decoded(DECODING).tobytes() == picture(3).tobytes()
    with pytest.raises(UsageError, match="standard input holds nothing"):
        given(b"")
    with pytest.raises(UsageError, match="which is a terminal"):
        given(b"", is_terminal=True)
    monkeypatch.setattr("tvt_ray.data.given.MOST_BYTES", 3)
    with pytest.raises(UsageError, match="more than 256 MiB"):
        given(b"four")


def test_files_and_folders_of_another_filesystem_are_read(photos, monkeypatch):
    local = pafs.SubTreeFileSystem(str(photos.parent), pafs.LocalFileSystem())
    monkeypatch.setattr("tvt_ray.data.given.as_location", lambda text: RemotePath(local, text.split("://")[1], text))
    assert names("s3://photos/a.png", "s3://photos") == [
        "s3://photos/a.png",
        "s3://photos/a.png",
        "s3://photos/b.png",
        "s3://photos/in/c.jpg",
    ]
    assert images_at(["s3://photos"])[0][1].decoded(DECODING).tobytes() == picture(1).tobytes()
    with pytest.raises(UsageError, match="s3://none holds no images, or is not there"):
        images_at(["s3://none"])


def test_python_gives_images_in_any_form(photos):
    image = picture(5)
    levels = np.asarray(image)
    forms = [
        image,
        encode(image),
        levels,
        levels.transpose(2, 0, 1),
        torch.from_numpy(levels.copy()),
        torch.from_numpy(levels.copy()).permute(2, 0, 1).float().div(255).requires_grad_(),
        levels.astype(np.float64) / 255,
        levels.astype(np.int64),
    ]
    for form in forms:
        (alone,) = pixels(form)
        np.testing.assert_array_equal(alone, levels)
    for found in pixels(forms):
        np.testing.assert_array_equal(found, levels)
    picture(0).save(photos / "a.png")
    for path in ("photos/a.png", photos / "a.png"):
        np.testing.assert_array_equal(pixels(path)[0], np.asarray(picture(0)))
    assert pixels([]) == []
    assert len(pixels(np.stack([levels, levels, levels]))) == 3  # (N, H, W, C)
    grey = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(pixels(grey)[0][..., 0], [[255, 0], [0, 255]])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            np.full((4, 4, 3), 200.0),
            r"floats of an image are from 0 to 1; got 200 to 200 \(0 to 255 are given as uint8",
        ),
        (np.full((3, 4, 4), np.nan), "floats of an image are from 0 to 1"),
        (-np.ones((3, 8, 8), np.float32), "what `transform` made goes to the student itself"),
        (np.zeros((7, 8, 9), np.uint8), r"1, 3 or 4 channels; got the shape \(7, 8, 9\)"),
        (np.zeros((0, 4, 3)), "pixels are whole numbers"),
        (np.zeros(5, np.uint8), r"\(height, width\)"),
        ({"image": 1}, "an image is a PIL image, the path of a file, bytes, or an array of pixels.*got dict"),
        (None, "got NoneType"),
        ([Image.new("RGB", (2, 2)), 7], "got int"),
        ("photos", "photos has several images: give files, in the order of the answers"),
        ("none.png", r"there is no none\.png"),
        (b"no image", "corrupt image of bytes"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(photos, given, said):
    with pytest.raises(UsageError, match=said) as failure:
        pixels(given)
    assert "\n" not in str(failure.value)
