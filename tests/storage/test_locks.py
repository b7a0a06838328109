"""The lock that keeps a second driver out: the operating system's, and the lease where there is no such thing."""

import json
import os
import subprocess
import sys
import time

import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.conftest import REPO, make_row
from tvt_ray.errors import RunError, UsageError
from tvt_ray.scoring.rows import ROWS
from tvt_ray.storage import locks
from tvt_ray.storage.locations import RemotePath, write_atomically
from tvt_ray.storage.locks import FolderLock
from tvt_ray.storage.records import Records, RecordWriter


@pytest.fixture
def at_once(monkeypatch):
    """A lease is settled as soon as it is written."""
    monkeypatch.setattr(locks, "SETTLE_S", 0.0)


@pytest.fixture
def lease(remote, tmp_path):
    """Writes a lease into the remote folder, as another driver would have done so many seconds ago."""

    def write(text, seconds_ago=0.0):
        write_atomically(remote / ".lock", text if isinstance(text, bytes) else json.dumps(text).encode())
        then = time.time() - seconds_ago
        os.utime(tmp_path / "bucket" / "run" / ".lock", (then, then))

    return write


def enter(folder):
    """Takes the lock and keeps it."""
    return FolderLock(folder).__enter__()


def hold(folder):
    """Another process that has locked the folder, until its standard input closes."""
    script = (
        "import sys; from pathlib import Path; from tvt_ray.storage.locks import FolderLock\n"
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
        with pytest.raises(UsageError, match=rf"in use by another tvt process \(process {process.pid} on "):
            enter(tmp_path)
        process.kill() if end == "kill" else process.stdin.close()
        process.wait(10)
        with FolderLock(tmp_path):
            pass


def test_a_local_lock_is_never_lost(tmp_path):
    with FolderLock(tmp_path) as lock:
        lock.check()


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path):
    with pytest.raises(UsageError, match=r"absent/\.lock cannot be locked: No such file or directory"):
        enter(tmp_path / "absent")


def test_a_lease_keeps_others_out_while_it_is_renewed(remote, monkeypatch, at_once):
    monkeypatch.setattr(locks, "RENEW_S", 0.02)
    with FolderLock(remote):
        first = json.loads((remote / ".lock").read_text())["renewed"]
        with pytest.raises(UsageError, match="in use by another tvt process"):
            enter(remote)
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

    monkeypatch.setattr(locks.time, "sleep", meanwhile)
    with pytest.raises(UsageError, match=r"in use by another tvt process \(process 7 on another\)"):
        enter(remote)


def test_a_lease_that_ran_out_is_taken_over(remote, lease, at_once):
    lease({"owner": "process 1 on gone", "renewed": time.time() - 2 * locks.LEASE_S}, 2 * locks.LEASE_S)
    with FolderLock(remote) as lock:
        assert json.loads((remote / ".lock").read_text())["owner"] == lock.owner


@pytest.mark.parametrize("text", [{"owner": "process 7 on another", "renewed": 0.0}, {"owner": "process 7 on another"}])
def test_a_fresh_lease_is_fresh_whatever_its_text_says(text, remote, lease):
    """The owner's clock may be years behind."""
    lease(text)
    with pytest.raises(UsageError, match=r"process 7 on another; if it was killed, its lease ends within 90 s"):
        enter(remote)
    assert [path.name for path in remote.iterdir()] == [".lock"]  # the look at the store's clock leaves nothing


def test_a_driver_whose_clock_is_ahead_takes_no_fresh_lease(remote, lease, monkeypatch):
    lease({"owner": "process 7 on another", "token": "theirs", "renewed": time.time()}, locks.LEASE_S / 2)
    monkeypatch.setattr(locks.time, "time", lambda now=time.time: now() + 120)
    with pytest.raises(UsageError, match=r"in use by another tvt process \(process 7 on another"):
        enter(remote)


@pytest.mark.parametrize("skew_s", [-7200.0, 0.0, 7200.0])
def test_an_old_lease_is_taken_over_whatever_its_text_and_our_clock_say(skew_s, remote, lease, monkeypatch, at_once):
    lease({"owner": "process 1 on gone", "token": "theirs", "renewed": time.time() + 1e6}, locks.LEASE_S + 5)
    monkeypatch.setattr(locks.time, "time", lambda now=time.time: now() + skew_s)
    with FolderLock(remote) as lock:
        lock.check()
        assert json.loads((remote / ".lock").read_text())["owner"] == lock.owner


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"null", b"\xff\xfe"], ids=repr)
def test_a_lease_that_says_nothing_is_judged_by_its_age_too(damaged, remote, lease, at_once):
    lease(damaged)
    with pytest.raises(UsageError, match=r"in use by another tvt process \(an unknown driver; if it was killed"):
        enter(remote)
    lease(damaged, locks.LEASE_S + 5)
    with FolderLock(remote) as lock:
        assert json.loads((remote / ".lock").read_text())["owner"] == lock.owner
    assert not (remote / ".lock").exists()


@pytest.mark.parametrize("damaged", [b"", b"{", None], ids=repr)
def test_a_lease_that_was_damaged_or_removed_under_its_owner_is_lost(damaged, remote, monkeypatch, at_once):
    with FolderLock(remote) as lock:
        write_atomically(remote / ".lock", damaged) if damaged is not None else (remote / ".lock").unlink()
        lock.check()  # not asked for while the renewal is fresh
        monkeypatch.setattr(locks.time, "time", lambda now=time.time: now() + locks.LEASE_S)
        with pytest.raises(RunError, match=r"taken over by another tvt process \(which has ended\)"):
            lock.check()


def test_who_lost_its_lease_while_it_was_suspended_writes_no_more(remote, monkeypatch, at_once):
    theirs = {"owner": "process 7 on another", "token": "theirs", "renewed": time.time()}
    parts = Records(remote / "rows", ROWS)
    with FolderLock(remote) as lock:
        with RecordWriter(parts, lock.check) as writer:
            writer.put([make_row(1)])
        write_atomically(remote / ".lock", json.dumps(theirs).encode())
        monkeypatch.setattr(locks.time, "time", lambda now=time.time: now() + locks.LEASE_S)
        late = RecordWriter(parts, lock.check)
        late.put([make_row(2)])
        with pytest.raises(RunError, match=r"taken over by another tvt process \(process 7 on another\)"):
            late.close()
    assert Records(remote / "rows", ROWS).read() == [make_row(1)]
    assert json.loads((remote / ".lock").read_text()) == theirs  # theirs is left to them


def test_a_renewal_that_finds_anothers_lease_does_not_write_over_it(remote, monkeypatch, at_once):
    monkeypatch.setattr(locks, "RENEW_S", 0.02)
    theirs = {"owner": "process 7 on another", "token": "theirs", "renewed": time.time()}
    with FolderLock(remote) as lock:
        write_atomically(remote / ".lock", json.dumps(theirs).encode())
        lock._renewer.join(10)
        with pytest.raises(RunError, match="taken over"):
            lock.check()
    assert json.loads((remote / ".lock").read_text()) == theirs


@pytest.fixture
def timeless():
    """A store that does not say when a file was written."""
    store = MemoryFileSystem()
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    return RemotePath(pafs.PyFileSystem(pafs.FSSpecHandler(store)), "/bucket/run", "memory://bucket/run")


def test_where_the_store_has_no_clock_the_leases_text_is_believed(timeless, at_once):
    for renewed, free in ((time.time(), False), (time.time() - 2 * locks.LEASE_S, True)):
        text = {"owner": "process 7 on another", "token": "theirs", "renewed": renewed}
        write_atomically(timeless / ".lock", json.dumps(text).encode())
        assert (timeless / ".lock").modified() is None
        if free:
            with FolderLock(timeless):
                pass
        else:
            with pytest.raises(UsageError, match="process 7 on another"):
                enter(timeless)


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"renewed": null}', b'{"renewed": "soon"}'], ids=repr)
def test_where_the_store_has_no_clock_a_lease_without_a_time_has_run_out(damaged, timeless, at_once):
    write_atomically(timeless / ".lock", damaged)
    with FolderLock(timeless) as lock:
        assert json.loads((timeless / ".lock").read_text())["owner"] == lock.owner


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_nothing_is_emptied(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(UsageError, match=r"\.lock cannot be locked"), FolderLock(tmp_path):
        pass
    assert victim.read_text() == "mine"
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UsageError, match=r"\.lock cannot be locked: it is no file"), FolderLock(tmp_path):
        pass
