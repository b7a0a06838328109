"""Fixtures: a Ray cluster for a test process that needs one, one trained teacher and one cache folder for all."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from xdist.scheduler import LoadScopeScheduling

from tvt_ray.cli.main import main
from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Dataset
from tvt_ray.data.transforms import AugmentSettings
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.distillation.losses import LossSettings
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.exports.folder import StudentCard, save_student
from tvt_ray.proxies.probe import Probe, ProbeSettings, build_probe
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.scoring.rows import Row
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.training.learner import WorkerContext
from tvt_ray.vits import Space
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.pit import PiTSpace
from tvt_ray.vits.vit import ViTSpace

REPO = Path(__file__).parents[1]
SHARED_DATA = REPO.parent / "shared" / "data"

# A real teacher, trained in seconds.
TEACHER: dict[str, dict[str, object]] = {"teacher": {"image_size": 16}, "teacher_training": {"epochs": 2}}

# Small enough to enumerate and to build by the dozen; every space in the table has one.
SMALL_SPACES: dict[str, Space] = {
    "autoformer": AutoFormerSpace(
        image_size=32, patch_size=8, embed_dim=(24,), depth=(2, 3), num_heads=(2, 3), mlp_ratio=(1.5, 2.0)
    ),
    "pit": PiTSpace(
        image_size=32,
        patch_size=8,
        stride=4,
        base_dim=(8, 12),
        mlp_ratio=(1.5, 2),
        num_heads=(1, 2),
        depth=((1, 1, 1), (1, 2, 1)),
    ),
    "vit": ViTSpace(
        image_size=32, embed_dim=(24,), depth=(2, 3), head_dim=(8, 12), mlp_ratio=(1.5, 2), patch_size=(8, 16)
    ),
}

# A small student learns the digits so in seconds, and names six of ten right.
BY_LABELS = DistillSettings(
    epochs=8,
    batch_size=32,
    lr=8e-3,
    warmup_epochs=1,
    loss=LossSettings(weights={"cross_entropy": 1}),
    augment=AugmentSettings(scale=(1, 1), ratio=(1, 1), hflip=0, auto_augment=None, random_erasing=0),
)


def set_flags(sections: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Settings as the command line takes them: --set section.key=value for each."""
    return [
        word
        for section, values in sections.items()
        for key, value in values.items()
        for word in ("--set", f"{section}.{key}={value}")
    ]


# The command line's settings for a run that takes seconds.
SMALL = [
    *("--set", f"space={json.dumps(SMALL_SPACES['autoformer'].model_dump(mode='json'))}"),
    *set_flags({**TEACHER, "score": {"calibration_samples": 8}, "probe": {"num_images": 10}}),
]


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """The `tvt` command in this process: (exit code, standard output, standard error)."""
    try:
        code = main([str(part) for part in argv])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def make_row(number: int, flops: int = 10, status: str = "ok", shape: str | None = None, **readings: float) -> Row:
    """A row whose readings are functions of its number, unless they are given; every number is a shape of its own."""
    given = readings or {"attention_similarity": -number / 7, "l2_norm": number / 3}
    return Row(
        arch_id=f"a{number}",
        space="pit",
        arch={"base_dim": 16, "mlp_ratio": 1.5, "depth": [1, number, 1]},
        shape=shape or f"shape{number}",
        params=number,
        flops=flops,
        depth=number + 2,
        status="ok" if status == "ok" else "failed",
        error=None if status == "ok" else "RuntimeError: no",
        seed=3,
        seconds=0.25,
        readings=given if status == "ok" else {},
        searcher="random",
    )


def one_by_day(cases: Iterable[object]) -> list[object]:
    """Parameters of a test whose first case is in the gate, and the others in the night."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.night) for case in others)]


CLUSTER = "tests/cluster/"


class ClusterTogether(LoadScopeScheduling):
    """What runs on the cluster runs in one test process, beside which others run the rest.

    By path: pytest-xdist's own groups (3.8) do nothing with pytest 9.1 and newer, and say so to nobody.
    """

    def _split_scope(self, nodeid: str) -> str:
        return CLUSTER if nodeid.startswith(CLUSTER) else nodeid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest is begun with: the cluster's tests, then other slow ones."""

    def order(item: pytest.Item) -> int:
        return 0 if item.nodeid.startswith(CLUSTER) else 1 if item.get_closest_marker("slow") else 2

    for item in items:
        if "digits_student" in getattr(item, "fixturenames", ()):  # which trains
            item.add_marker(pytest.mark.slow)
    items.sort(key=order)


def pytest_sessionstart() -> None:
    """Until all is imported, the collector finds nothing, and takes as long as the imports themselves."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return ClusterTogether(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> None:
    temporary = tmp_path_factory.getbasetemp()
    cache = (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary) / "cache"  # one for all processes
    cache.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process per job that no test needs
    torch.set_num_threads(1)  # there may be a test process per core, and as Ray's workers have it


@pytest.fixture(params=sorted(SMALL_SPACES))
def space(request: pytest.FixtureRequest) -> Space:
    return SMALL_SPACES[request.param]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the development data (CIFAR-10, teacher weights, ground truth) is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataSettings())


@pytest.fixture(scope="session")
def config() -> RunConfig:
    """The default run with less of everything."""
    return load_config(
        None,
        [
            TEACHER,
            {"score": {"calibration_samples": 8}, "probe": {"num_images": 10}, "search": {"num_samples": 24}},
            {"distill": {"epochs": 2}, "cluster": {"gpus_per_training_worker": 0}},
        ],
    )


@pytest.fixture(scope="session")
def teacher(config: RunConfig, digits: Dataset) -> Teacher:
    """A real teacher: ResNet-20 trained on the digits for a few epochs (some seconds), by one of the test processes."""
    with one_at_a_time("teacher"):
        trained, _ = get_teacher(config.teacher, config.teacher_training, digits)
    return trained


@pytest.fixture(scope="session")
def probe(digits: Dataset, teacher: Teacher) -> Probe:
    return build_probe(digits.train, ProbeSettings(num_images=10), 32, teacher)


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[Path]:
    """The folder that the test processes share; who else is in a block of the same name is waited for."""
    cache = Path(os.environ["XDG_CACHE_HOME"])
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the test processes makes, and all of them read."""
    with one_at_a_time(name) as cache:
        if not (cache / name).exists():
            unfinished = cache / f"{name}.unfinished"
            make(unfinished)
            unfinished.rename(cache / name)
    return cache / name


@pytest.fixture(scope="session")
def digits_student(config: RunConfig, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that learned the digits by labels alone, in a run of this process's own: its folder.

    One of the test processes trains it (some seconds).
    """
    folder = tmp_path_factory.mktemp("digits") / "run"
    shutil.copytree(once("student", lambda unfinished: _train_student(config, digits, unfinished)), folder)
    (student,) = (folder / "distill").iterdir()
    return student


def _train_student(config: RunConfig, digits: Dataset, folder: Path) -> None:
    space, run = SMALL_SPACES["autoformer"], RunFolder(folder)
    run.make()
    run.claim(config.model_copy(update={"space": space}))
    run.keep_data(DataIdentity.of(digits, config.probe))
    arch = max(space.enumerate(), key=lambda arch: space.cost(arch, 10).params)
    untrained = build_teacher(config.teacher.untrained(), 10)
    inputs = DistillInputs(digits.train, digits.val, digits.test, untrained)
    cohort = Cohort([DistillTask(space, arch, 10, BY_LABELS)], inputs, WorkerContext(torch.device("cpu")))
    while not cohort.done:
        cohort.run_epoch()
    ((arch_id, test_acc),) = cohort.test().items()
    card = StudentCard(space, arch, digits.class_names, {"test_acc": test_acc, "dataset": digits.name})
    save_student(run.distill_folder / arch_id, card, save(cohort.learners[arch_id].kept().state_dict()), [])


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """This test process's Ray: four logical CPUs, and a GPU that exists in name only; its address."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"metrics_report_interval_ms": 1000},  # the least that Ray takes; 10 s otherwise
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()
