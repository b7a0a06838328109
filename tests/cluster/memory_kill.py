"""A search in which one architecture takes more memory than the node may use: what test_scoring.py runs as a process.

python tests/cluster/memory_kill.py RUN_DIR

Starts a Ray of its own whose memory monitor kills workers when 4 GiB more are taken than now. Prints the failed rows.
"""

import logging
import sys
from pathlib import Path

import ray
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import TEACHER
from tvt_ray.cluster import scoring
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.searchers import batching, build_algorithm
from tvt_ray.searchers.recorder import Sampler
from tvt_ray.verbs.search import search
from tvt_ray.vits.budget import Limits

SETTINGS = {
    "score": {"calibration_samples": 2},
    "probe": {"num_images": 10},
    "search": {"num_samples": 6},
    "cluster": {"archs_per_trial": 1},
}
ROOM_BYTES, HOG_BYTES, STEP_BYTES = 4 * 2**30, 12 * 2**30, 2**28  # room for what other tests take meanwhile


def memory_share_now() -> float:
    """Of this machine's memory, with ROOM_BYTES more than are in use."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    amounts = {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines}
    return (amounts["MemTotal"] - amounts["MemAvailable"] + ROOM_BYTES) / amounts["MemTotal"]


def main(run_dir: Path) -> None:
    config = load_config(None, [TEACHER, SETTINGS])
    sampler = Sampler(build_algorithm(config.search, config.space, 0), Limits(config.space, config.budget, 10), 0)
    greedy = [sampler.ask() for _ in range(3)][-1]

    class Greedy(scoring.ScoringTrial):
        def _read(self, arch):
            if arch == greedy:
                hoard = [torch.ones(STEP_BYTES // 4) for _ in range(HOG_BYTES // STEP_BYTES)]
                return super()._read(arch) if not hoard else None
            return super()._read(arch)

    scoring.ScoringTrial, batching.MAX_LOSSES = Greedy, 1
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"memory_usage_threshold": memory_share_now(), "memory_monitor_refresh_ms": 100},
    )
    summary = search(config, run_dir=run_dir).summary
    failed = [row for row in RunFolder(run_dir).rows().read() if row.status == "failed"]
    ray.shutdown()
    print(summary.num_scored, [row.arch_id == config.space.arch_id(greedy) for row in failed], failed[0].error)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
