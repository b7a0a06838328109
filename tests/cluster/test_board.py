"""What trainings tell the driver and go on from, and what the processes that do so have to import."""

import subprocess
import sys

import pytest
import ray

from tests.conftest import REPO
from tvt_ray.cluster.board import STATE_FILE, TrainingBoard

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_what_is_posted_is_taken_once_and_what_is_kept_is_a_file(cluster, tmp_path):
    board = TrainingBoard.remote(tmp_path)
    board.post.remote({"a": {"val_acc": 40.0}, "b": {"val_acc": 50.0}})
    board.post.remote({"a": {"val_acc": 60.0}})
    posted = [("a", {"val_acc": 40.0}), ("b", {"val_acc": 50.0}), ("a", {"val_acc": 60.0})]
    assert ray.get([board.take.remote(), board.take.remote()]) == [posted, []]
    ray.get(board.keep.remote({"a": b"first", "b": b"other"}))
    ray.get(board.keep.remote({"a": b"second"}))
    assert ray.get(board.states.remote(["a", "c"])) == {"a": b"second"}
    assert (tmp_path / "b" / STATE_FILE).read_bytes() == b"other"
    ray.kill(board)


def test_workers_begin_without_what_they_do_not_need():
    """Each is a process of its own, which imports what its class's module does."""
    script = (
        "import sys; import tvt_ray.cluster.board; assert 'torch' not in sys.modules\n"
        "import tvt_ray.cluster.cohorts, tvt_ray.cluster.tasks\n"
        "assert not {'ray.train', 'ray.tune', 'ray.data', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPO, check=True, timeout=120)
