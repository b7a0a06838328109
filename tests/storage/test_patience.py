"""Whether what is outside answers, and takes what will be written, found out before any work."""

import os
import shutil
import subprocess
import sys
import threading
import time

import pyarrow.fs as pafs
import pytest

from tests.conftest import REPO
from tvt_ray.errors import UsageError
from tvt_ray.storage import patience
from tvt_ray.storage.locations import RemotePath
from tvt_ray.storage.patience import check_folder, check_room, within


def test_an_answer_in_time_is_given_on():
    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError, match="said"):
        within(5, lambda: {}["said"])


def test_who_never_answers_is_left():
    start, over = time.monotonic(), threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        within(0.1, lambda: over.wait(60))
    assert time.monotonic() - start < 10
    over.set()


def test_a_folder_that_can_be_written_to_is_left_as_it_was(folder, tmp_path):
    check_folder(folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    if folder == tmp_path / "bucket" / "run":
        assert not folder.exists()


def test_a_file_in_the_way_is_one_line(folder, tmp_path):
    (tmp_path / "bucket").write_text("")
    with pytest.raises(UsageError, match=r"bucket/run cannot be written to: .+") as error:
        check_folder(folder)
    assert "\n" not in str(error.value)


def test_a_store_that_never_answers_is_given_up(monkeypatch, tmp_path):
    class Silent(pafs.FileSystemHandler):
        """Waits whatever it is asked."""

        def wait(self, *args, **options):
            over.wait(60)

        delete_dir = delete_dir_contents = delete_file = delete_root_dir_contents = move = copy_file = wait
        open_input_stream = open_input_file = open_output_stream = open_append_stream = create_dir = wait
        get_file_info = get_file_info_selector = wait

        def get_type_name(self):
            return "silent"

        def normalize_path(self, path):
            return path

    over = threading.Event()
    monkeypatch.setattr(patience, "ANSWER_S", 0.2)
    with pytest.raises(UsageError, match=r"s3://bucket/run cannot be written to: no answer within 0\.2 s"):
        check_folder(RemotePath(pafs.PyFileSystem(Silent()), "bucket/run", "s3://bucket/run"))
    over.set()


def test_a_disk_that_is_nearly_full_is_said_beforehand(monkeypatch, tmp_path, remote):
    usage = shutil.disk_usage(tmp_path)
    check_room(tmp_path / "none" / "run")
    check_room(remote)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=3 * 2**20))
    with pytest.raises(UsageError, match=r"run has 3 MiB free, and a run needs 128"):
        check_room(tmp_path / "none" / "run")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_said_beforehand(tmp_path):
    """As a process of a user who may read it."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o755)
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_mode & 0o005 != 0o005:
            place.chmod(place.stat().st_mode | 0o005)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tvt_ray.storage.patience import check_folder\n"
        "os.setgid(65534); os.setuid(65534)\ncheck_folder(Path(sys.argv[1]) / 'run')"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        f"UsageError: {folder}/run cannot be written to: {folder} is no folder that can be written to"
    )
