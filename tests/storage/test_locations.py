"""Paths and URIs, and files that appear whole or not at all."""

import os
import time
from pathlib import Path

import pytest

from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import (
    RemotePath,
    absolute,
    as_location,
    cache_folder,
    check_entries,
    check_writable,
    first_line,
    keep_if_possible,
    make_privately,
    shown,
    write_atomically,
    write_new,
)


def test_what_is_no_uri_is_a_path_and_stays_the_same_place_when_the_current_folder_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = as_location("runs/first")
    assert first == as_location(Path("runs/first")) == as_location("./runs/../runs/first") == tmp_path / "runs/first"
    monkeypatch.chdir("/")
    assert as_location(first) == first
    assert as_location(tmp_path.as_uri()) == tmp_path


def test_a_tilde_is_the_home_folder_and_a_link_stays_a_link(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert absolute("~/link/run") == absolute(Path("~/link/run")) == as_location("~/link/run") == tmp_path / "link/run"
    assert absolute("~nobody_of_that_name/run").name == "run"


def test_a_path_that_no_config_could_hold_is_one_line():
    with pytest.raises(UsageError, match=r"^paths are UTF-8; got caf\\xe9/run$"):
        as_location("caf\udce9/run")


def test_names_are_shown_as_any_terminal_takes_them():
    assert shown(Path("été/猫 \u3000x")) == "été/猫 \u3000x"
    assert shown(os.fsdecode(b"caf\xe9\n\x1b[31m")) == r"caf\xe9\n\x1b[31m"
    assert shown("a\u2028b") == r"a\u2028b"
    assert shown(os.fsdecode(bytes(range(1, 256)))).isprintable()


def test_a_remote_path_is_passed_through(remote):
    assert as_location(remote) is remote


def test_an_unknown_filesystem_is_one_line():
    with pytest.raises(UsageError, match=r"ftp://host/run: .*; s3://, gs://") as error:
        as_location("ftp://host/run")
    assert "\n" not in str(error.value)


def test_a_remote_path_names_and_joins_like_a_local_one(remote):
    part = remote / "rows" / "part-000001.parquet"
    assert str(part) == "s3://bucket/run/rows/part-000001.parquet"
    assert part.name == "part-000001.parquet"
    assert str(part.with_suffix(".png")) == "s3://bucket/run/rows/part-000001.png"
    assert str(part.parent) == "s3://bucket/run/rows"


def test_a_uris_options_stay_behind_its_path(remote):
    local = RemotePath(remote.filesystem, "b/run", "s3://b/run?endpoint_override=localhost:9000")
    assert str(local / "rows") == "s3://b/run/rows?endpoint_override=localhost:9000"
    assert str((local / "rows").parent) == str(local)


def test_files_are_written_whole_listed_and_removed(remote, tmp_path):
    assert not remote.exists()
    assert remote.glob("*") == []
    write_atomically(remote / "a.json", b"1")
    write_atomically(remote / "a.json", b"22")
    write_atomically(remote / "b.txt", b"3")
    assert (remote / "a.json").read_text() == "22"
    assert [path.name for path in remote.glob("*.json")] == ["a.json"]
    assert sorted(path.name for path in (tmp_path / "bucket" / "run").iterdir()) == ["a.json", "b.txt"]
    (remote / "a.json").unlink()
    assert not (remote / "a.json").exists()


def test_what_is_not_there_is_said_as_for_a_local_path(folder):
    with pytest.raises(FileNotFoundError):
        (folder / "a.json").read_bytes()


def test_what_cannot_be_read_written_or_made_is_one_line(remote, tmp_path):
    (tmp_path / "bucket" / "run" / "a.json").mkdir(parents=True)
    with pytest.raises(RunError, match=r"^s3://bucket/run/a.json cannot be read: .+$"):
        (remote / "a.json").read_bytes()
    with pytest.raises(RunError, match=r"^s3://bucket/run/a.json cannot be written: .+$"):
        write_atomically(remote / "a.json", b"1")
    (tmp_path / "bucket" / "file").write_bytes(b"")
    with pytest.raises(RunError, match=r"^s3://bucket/file/run cannot be made: .+$"):
        (remote.parent / "file" / "run").mkdir()


def test_files_and_folders_are_told_apart(folder):
    write_atomically(folder / "rows" / "a.json", b"1")
    assert sorted(path.name for path in folder.iterdir()) == ["rows"]
    assert (folder / "rows").exists()
    assert not (folder / "rows").is_file()
    assert (folder / "rows" / "a.json").is_file()


def test_a_remote_glob_lists_files_alone(remote):
    write_atomically(remote / "rows" / "a.json", b"1")
    write_atomically(remote / "b.json", b"1")
    assert [path.name for path in remote.glob("*")] == ["b.json"]
    assert [path.name for path in (remote / "rows").glob("*.txt")] == []


def test_a_remote_file_says_when_it_was_written(remote, tmp_path):
    assert (remote / "a.json").modified() is None
    write_atomically(remote / "a.json", b"1")
    assert (remote / "a.json").modified() == pytest.approx(time.time(), abs=60)
    os.utime(tmp_path / "bucket" / "run" / "a.json", (1000.0, 1000.5))
    assert (remote / "a.json").modified() == 1000.5


def test_a_local_file_appears_whole_or_not_at_all(tmp_path):
    write_atomically(tmp_path / "new" / "a.json", b"1")
    write_atomically(tmp_path / "new" / "a.json", b"22")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"22"
    (tmp_path / "new" / "b.json").mkdir()
    with pytest.raises(RunError, match=r"^.*b\.json cannot be written: .+$"):
        write_atomically(tmp_path / "new" / "b.json", b"3")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "b.json"]  # nothing half-written


def test_an_error_is_cut_to_its_first_line():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_what_could_not_be_written_later_is_refused_before(tmp_path):
    check_writable(tmp_path / "a" / "b" / "c.png")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="cannot be written: it is a folder"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file is no folder that can be written to"):
        check_writable(tmp_path / "file" / "c.png")


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tvt_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert cache_folder() == tmp_path / "me" / ".cache" / "tvt_ray"


def test_what_can_be_made_again_may_fail_to_be_kept(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    keep_if_possible(lambda: write_atomically(tmp_path / "file" / "a", b"1"), "the teacher")
    (line,) = capsys.readouterr().err.splitlines()
    assert "the teacher is not kept: " in line
    keep_if_possible(lambda: write_atomically(tmp_path / "kept", b"1"), "the teacher")
    assert (tmp_path / "kept").read_bytes() == b"1"
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):
        keep_if_possible(lambda: 1 / 0, "a mistake of the program")


def test_a_link_that_somebody_planted_is_not_written_through(tmp_path):
    """Neither one under the file's own name, nor under any name that could be foreseen."""
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    (folder / "config.yaml").symlink_to(victim)
    (folder / f".config.yaml.{os.getpid()}.tmp").symlink_to(victim)
    write_atomically(folder / "config.yaml", b"theirs")
    assert victim.read_text() == "mine"
    assert (folder / "config.yaml").read_text() == "theirs"
    assert not (folder / "config.yaml").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == [f".config.yaml.{os.getpid()}.tmp", "config.yaml"]


def test_a_long_name_is_written_and_who_may_read_it_is_the_user_s_choice(tmp_path):
    before = os.umask(0o027)
    write_atomically(tmp_path / ("a" * 250), b"1")
    os.umask(before)
    (written,) = tmp_path.iterdir()
    assert (written.read_bytes(), written.stat().st_mode & 0o777) == (b"1", 0o640)


def test_what_leads_out_of_a_stranger_s_folder_is_refused(tmp_path):
    folder = tmp_path / "run"
    (folder / "rows").mkdir(parents=True)
    (folder / "rows/part").touch()
    (folder / "link").symlink_to("rows/part")  # stays inside
    check_entries(folder)
    check_entries(tmp_path / "absent")
    (tmp_path / "way").symlink_to(folder)  # the user's own way to it
    check_entries(tmp_path / "way")
    (folder / "rows/deep").symlink_to("../../secret")
    with pytest.raises(UsageError, match=r"run holds rows/deep, a link to \.\./\.\./secret outside of it"):
        check_entries(folder)
    (folder / "rows/deep").unlink()
    os.mkfifo(folder / "config.yaml")
    with pytest.raises(UsageError, match=r"run holds config\.yaml, which is no file and no folder"):
        check_entries(folder)


def test_a_key_in_a_uri_is_refused_and_not_repeated():
    for uri in ("s3://AKIA:hunter2@bucket/run", "hdfs://me:hunter2@host/run?x=1"):
        with pytest.raises(UsageError, match="give it by the environment") as refused:
            as_location(uri)
        assert "hunter2" not in str(refused.value)
        assert "AKIA" not in str(refused.value)


def test_the_cache_is_its_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    cache_folder().chmod(0o755)
    assert cache_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("links", [True, False], ids=["with hard links", "without"])
def test_a_new_file_takes_no_name_that_is_taken(tmp_path, monkeypatch, links):
    def refuse(path, target):
        raise PermissionError(1, "Operation not permitted")

    if not links:  # as exFAT and many shares
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert write_new(tmp_path / "a", b"1")
    assert not write_new(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    make_privately(tmp_path / "key", b"1")
    make_privately(tmp_path / "key", b"2")
    assert ((tmp_path / "key").read_bytes(), (tmp_path / "key").stat().st_mode & 0o777) == (b"1", 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "key"]
