import hashlib
import json
import os
from pathlib import Path

import pytest

from tvt_ray.data.hashes import bytes_hash, combined_hash, file_hashes
from tvt_ray.errors import UsageError

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path):
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


def test_a_hash_is_sha256_of_the_content(files):
    assert file_hashes(files) == [hashlib.sha256(name).hexdigest() for name in (b"a", b"b")]
    assert file_hashes(files[:1]) == [bytes_hash(b"a")]
    assert file_hashes([]) == []


def test_an_unchanged_file_is_not_read_twice(files):
    """Its content is changed behind the back of its size and its modification time."""
    before = file_hashes(files)
    swap_content(files[0], b"x")
    assert file_hashes(files) == before
    os.utime(files[0], (LONG_AGO, LONG_AGO + 1))
    assert file_hashes(files) == [bytes_hash(b"x"), before[1]]


def test_a_file_of_another_size_is_read_again(files):
    file_hashes(files)
    swap_content(files[0], b"longer")
    assert file_hashes(files)[0] == bytes_hash(b"longer")


def test_a_file_that_was_changed_just_now_is_not_trusted_later(files):
    """Within the clock's grain it may change again under the same modification time."""
    files[0].write_bytes(b"y")
    stat = files[0].stat()
    assert file_hashes(files)[0] == bytes_hash(b"y")
    files[0].write_bytes(b"z")
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_hashes(files)[0] == bytes_hash(b"z")


def test_a_relative_path_is_of_the_folder_that_one_is_in(files, tmp_path, monkeypatch):
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "a").write_bytes(b"x")
    os.utime(tmp_path / "e" / "a", (LONG_AGO, LONG_AGO))
    for folder, content in (("d", b"a"), ("e", b"x"), ("d", b"a")):
        monkeypatch.chdir(tmp_path / folder)
        assert file_hashes([Path("a")]) == [bytes_hash(content)]


def test_a_copy_elsewhere_has_the_same_hash(files, tmp_path):
    (tmp_path / "other").write_bytes(files[0].read_bytes())
    assert file_hashes([tmp_path / "other"]) == file_hashes(files[:1])


def test_a_file_that_is_missing_or_unreadable_is_named(files, tmp_path):
    with pytest.raises(UsageError, match=r"image .*/absent\.png is listed but not there"):
        file_hashes([*files, tmp_path / "absent.png"])
    with pytest.raises(UsageError, match=r"image .*/d cannot be read: "):
        file_hashes([tmp_path / "d"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 3}', '{"a": ["x", "y", "z"]}'])
def test_a_damaged_memory_is_none(files, cache, content):
    before = file_hashes(files)
    (memory,) = (cache / "tvt_ray" / "hashes").iterdir()
    assert len(json.loads(memory.read_text())) == 2
    memory.write_text(content)
    assert file_hashes(files) == before


def test_a_cache_that_cannot_be_written_stops_nothing(files, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert file_hashes(files) == [bytes_hash(b"a"), bytes_hash(b"b")]


def test_names_that_are_no_text_are_remembered_too(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    path.write_bytes(b"a")
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert file_hashes([path]) == file_hashes([path]) == [bytes_hash(b"a")]


def test_a_combined_hash_is_of_texts_in_their_order():
    assert len({combined_hash(parts) for parts in (["a", "b"], ["b", "a"], ["ab"], [], ["a", "b", ""])}) == 5
