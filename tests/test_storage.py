"""Run folders beyond the local disk, and the lock that keeps a second driver out.

The remote filesystem is one of pyarrow's over local files, which goes the way of S3 and GCS through RemotePath.
"""

import json
import subprocess
import sys
import time

import pyarrow.fs as pafs
import pytest

from tests.conftest import REPO
from tests.search.test_store import row
from tvt_ray import storage
from tvt_ray.config import RunConfig
from tvt_ray.errors import RunError, UsageError
from tvt_ray.runs import RunFolder
from tvt_ray.search.store import RowStore, RowWriter
from tvt_ray.storage import FolderLock, RemotePath, as_location, write_atomically


@pytest.fixture
def remote(tmp_path):
    return RemotePath(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "bucket/run", "s3://bucket/run")


def test_what_is_no_uri_is_a_path(tmp_path):
    assert as_location("runs/first") == as_location(as_location("runs/first")) == storage.Path("runs/first")
    assert as_location(tmp_path.as_uri()) == tmp_path


def test_an_unknown_filesystem_is_one_line():
    with pytest.raises(UsageError, match=r"ftp://host/run: .*; s3://, gs://"):
        as_location("ftp://host/run")


def test_a_remote_path_names_and_joins_like_a_local_one(remote):
    part = remote / "rows" / "part-000001.parquet"
    assert str(part) == "s3://bucket/run/rows/part-000001.parquet"
    assert (part.name, part.stem) == ("part-000001.parquet", "part-000001")
    assert str(part.with_suffix(".png")) == "s3://bucket/run/rows/part-000001.png"
    assert str(part.parent) == "s3://bucket/run/rows"
    local = RemotePath(remote.filesystem, "b/run", "s3://b/run?endpoint_override=localhost:9000")
    assert str(local / "rows") == "s3://b/run/rows?endpoint_override=localhost:9000"
    assert str((local / "rows").parent) == str(local)
    command = RunFolder(local).search_command
    assert command == "python search.py --run-dir 's3://b/run?endpoint_override=localhost:9000' --resume"


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
    with pytest.raises(RunError, match=r"s3://bucket/run/a.json cannot be read: "):
        (remote / "a.json").read_bytes()


def test_rows_and_config_live_there_too(remote):
    folder, config = RunFolder(remote), RunConfig()
    folder.check(config, resume=False)
    with folder.lock(), RowWriter(folder.store()) as writer:
        folder.claim(config)
        for number in range(20):
            writer.put([row(number)])
    assert RowStore(remote / "rows").read() == [row(number) for number in range(20)]
    folder.store().compact()
    assert len((remote / "rows").glob("*.parquet")) == 1
    assert folder.config() == config
    assert folder.search_command == "python search.py --run-dir s3://bucket/run --resume"
    with pytest.raises(UsageError, match="already holds a run"):
        folder.check(config, resume=False)


def hold(folder):
    """Another process that has locked the folder, until its standard input closes."""
    script = (
        "import sys; from pathlib import Path; from tvt_ray.storage import FolderLock\n"
        f"with FolderLock(Path({str(folder)!r})): print('in', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    return process


def test_a_second_driver_is_kept_out_until_the_first_is_gone_or_dead(tmp_path):
    for end in ("exit", "kill"):
        process = hold(tmp_path)
        with pytest.raises(UsageError, match=rf"in use by another search \(process {process.pid} on "):
            FolderLock(tmp_path).__enter__()
        process.kill() if end == "kill" else process.stdin.close()
        process.wait(10)
        with FolderLock(tmp_path):
            pass


def test_a_lease_keeps_others_out_while_it_is_renewed(remote, monkeypatch):
    monkeypatch.setattr(storage, "RENEW_S", 0.02)
    monkeypatch.setattr(storage, "SETTLE_S", 0.0)
    with FolderLock(remote):
        first = json.loads((remote / ".lock").read_text())["renewed"]
        with pytest.raises(UsageError, match="in use by another search"):
            FolderLock(remote).__enter__()
        deadline = time.monotonic() + 10
        while json.loads((remote / ".lock").read_text())["renewed"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not (remote / ".lock").exists()


def test_of_two_drivers_that_start_together_one_is_kept_out(remote, monkeypatch):
    """Both have found no lease; the first writes its own, the second writes over it, and the first looks."""

    def meanwhile(seconds):
        theirs = {"owner": "process 7 on another", "token": "theirs", "renewed": time.time()}
        write_atomically(remote / ".lock", json.dumps(theirs).encode())

    monkeypatch.setattr(storage.time, "sleep", meanwhile)
    with pytest.raises(UsageError, match=r"in use by another search \(process 7 on another\)"):
        FolderLock(remote).__enter__()


def test_a_lease_that_ran_out_is_taken_over(remote, monkeypatch):
    monkeypatch.setattr(storage, "SETTLE_S", 0.0)
    stale = {"owner": "process 1 on gone", "renewed": time.time() - 2 * storage.LEASE_S}
    write_atomically(remote / ".lock", json.dumps(stale).encode())
    with FolderLock(remote) as lock:
        assert json.loads((remote / ".lock").read_text())["owner"] == lock.owner


def test_who_lost_its_lease_while_it_was_suspended_writes_no_more(remote, monkeypatch):
    monkeypatch.setattr(storage, "SETTLE_S", 0.0)
    theirs = {"owner": "process 7 on another", "token": "theirs", "renewed": time.time()}
    with FolderLock(remote) as lock:
        with RowWriter(RowStore(remote / "rows"), lock.check) as writer:
            writer.put([row(1)])
        write_atomically(remote / ".lock", json.dumps(theirs).encode())
        monkeypatch.setattr(storage.time, "time", lambda now=time.time: now() + storage.LEASE_S)
        late = RowWriter(RowStore(remote / "rows"), lock.check)
        late.put([row(2)])
        with pytest.raises(RunError, match=r"taken over by another search \(process 7 on another\)"):
            late.close()
    assert RowStore(remote / "rows").read() == [row(1)]
    assert json.loads((remote / ".lock").read_text()) == theirs  # theirs is left to them


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/run cannot be made: Not a directory"):
        RunFolder(tmp_path / "file" / "run").lock()
