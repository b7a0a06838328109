"""Where private parts of Ray are touched, as few as there can be: each says why, and what would do without it.

Each has a test that names it when Ray changes it (tests/cluster/test_ray_patches.py). Tested with Ray 2.59 and 2.60.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import services
from ray._private.gcs_utils import create_gcs_channel
from ray._private.services import get_ray_address_from_environment
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.job_config import JobConfig

from tvt_ray.errors import RunError, UsageError
from tvt_ray.storage.locations import first_line

if TYPE_CHECKING:
    from ray.tune import ResultGrid

LOOPBACK = "127.0.0.1"
UV_VARIABLE = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
FAREWELL_S = 0.5  # that the end of a Train job waits for a helper
STAYS_AFTER_S = 60.0  # beyond its deadline, a node that was to go is there for good


def ask_head(address: str, timeout_s: float) -> None:
    """One call to a cluster's head at HOST:PORT, with this process's token and TLS settings.

    `ray.init` asks a head that refuses for a minute, and writes a warning for each time. Raises grpc.RpcError, with
    UNAUTHENTICATED where the token is not the cluster's, and Ray's AuthenticationError where a token is asked for and
    there is none. Without: a socket that opens is taken for a head, and `ray.init` finds out.
    """
    with create_gcs_channel(address) as channel:
        gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetClusterId(
            gcs_service_pb2.GetClusterIdRequest(), timeout=timeout_s
        )


def address_of_auto() -> str:
    """HOST:PORT of the head that `auto` means to Ray here: one that runs on this machine, or that it last joined.

    Raises ConnectionError where there is none. Without: `auto` is refused, and HOST:PORT has to be given.
    """
    found: str = get_ray_address_from_environment("auto", None)
    return found


class _FoldersOfThisProcess(list[str]):
    """Folders that workers import from: of those that Ray adds, the ones that this process imports from as well."""

    def extend(self, folders: Iterable[str]) -> None:
        own = {os.path.realpath(folder) for folder in sys.path}
        super().extend(folder for folder in folders if os.path.realpath(folder) in own)


def job_config() -> JobConfig:
    """For `ray.init`, which would put the current folder on the import path of every worker, before all else.

    It may be a stranger's, and hold a `torch.py`. It stays where this process imports from it: as `python -m` does.
    Without: a current folder that holds Python files has to be refused.
    """
    config = JobConfig()
    config._py_driver_sys_path = _FoldersOfThisProcess()
    return config


@contextlib.contextmanager
def workers_environment() -> Iterator[None]:
    """Keeps a `ray.init` in the block, of a driver that `uv run` started, from having each worker build an environment.

    Ray does so unless RAY_ENABLE_UV_RUN_RUNTIME_ENV is 0 when it is imported: gigabytes for each, where workers of this
    machine have the driver's, and other machines theirs. Where the variable is set, it counts. Without: it has to be.
    """
    from ray._private import ray_constants

    original = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    if UV_VARIABLE not in os.environ:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    try:
        yield
    finally:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = original


@contextlib.contextmanager
def on_loopback() -> Iterator[dict[str, str]]:
    """Arguments with which a `ray.init` in the block starts a cluster that listens on 127.0.0.1 alone.

    Ray takes that address for a mistake and puts this machine's own in its place, and then listens on every interface.
    Without: the token alone keeps others of the network out.
    """
    original = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield {"_node_ip_address": LOOPBACK}
    finally:
        services.resolve_ip_for_localhost = original


def leaving_nodes(now: float) -> frozenset[str]:
    """Nodes of the connected cluster that were announced to go (`ray drain-node`, a spot machine's notice), by id.

    `now`: time.time(); one that is still there a minute after its time was up stays. Without: a node is known to go
    when it is gone, and its workers' batches are read again.
    """
    from ray._private.state import state

    deadlines: dict[str, int] = state.get_draining_nodes()  # in milliseconds; 0: none
    return frozenset(node for node, ms in deadlines.items() if not ms or now < ms / 1000 + STAYS_AFTER_S)


def actor_of(trial: Any) -> Any:
    """The handle of a running trial's actor.

    Tune sends its actors nothing but `train`; what a worker reads next is sent to it by a method of its own, which Ray
    executes before the `train` that Tune submits after it. Without: `cluster.trial: architecture`, whose trials have
    nothing but their config, or trials whose config is a batch.
    """
    try:
        actor = trial.temporary_state.ray_actor
    except AttributeError:
        raise RunError(f"this version of Ray ({ray.__version__}) does not say which actor a trial has") from None
    return actor


def forget_last_result(trial: Any) -> None:
    """Keeps Tune from asking a dead actor for the last result of its trial, which raises.

    Without: trials that died are kept from Tune's reports by a `Trial` of one's own.
    """
    trial._default_result_or_future = None


@contextlib.contextmanager
def all_deaths_are_actor_errors() -> Iterator[None]:
    """Makes Tune treat whatever Ray says of a worker as that worker's death, for as long as the block runs.

    Ray has many exceptions for it that are no RayActorError (killed by the memory monitor, a runtime environment that
    could not be made, a node that left, an unschedulable actor …), and on those Tune ends the whole run. Without: it
    does, rows stay, and `--resume` goes on.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager  # which most workers need not wait for

    original = RayActorManager._actor_task_failed

    @functools.wraps(original)
    def task_failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = task_failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


@contextlib.contextmanager
def jobs_end_with_their_workers() -> Iterator[None]:
    """Keeps Train from waiting 12 s at the end of each job, for as long as the block runs.

    Train asks the actor that would remove a job's placement group to stop, and that waits for a thread of its own,
    which waits for the actor to be done with stopping (Ray 2.60). Without: 12 s more for each job.
    """
    from ray.train.v2.api import data_parallel_trainer  # which those who train nothing need not wait for

    original = getattr(data_parallel_trainer, "PlacementGroupCleanerCallback", None)
    if original is None:  # Ray before that actor
        yield
        return
    patient = functools.partial(original, stop_timeout=FAREWELL_S)
    data_parallel_trainer.PlacementGroupCleanerCallback = patient
    try:
        yield
    finally:
        data_parallel_trainer.PlacementGroupCleanerCallback = original


def trial_storage(folder: str, name: str) -> Any:
    """Where trials that Tune does not run keep what its loggers write: `folder`/`name`, by way of this session's files.

    Raises UsageError where it cannot be written. Without: callbacks that write to places of their own.
    """
    from ray.train._internal.storage import StorageContext

    try:
        return StorageContext(storage_path=folder, experiment_dir_name=name)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{folder} cannot hold what callbacks write: {first_line(error)}") from None


def keep_files(storage: Any, wait: bool = False) -> None:
    """Copies what loggers wrote so far to a `trial_storage`, every few minutes; `wait`: all of it, now."""
    if not Path(storage.experiment_driver_staging_path).is_dir():
        return
    places = {"local_dir": storage.experiment_driver_staging_path, "remote_dir": storage.experiment_fs_path}
    if not wait:
        storage.syncer.sync_up_if_needed(**places)
        return
    storage.syncer.wait()
    storage.syncer.sync_up(**places)
    storage.syncer.wait()


def grid_of(trials: Sequence[Any], folder: str, filesystem: Any) -> ResultGrid:
    """Tune's results of trials that it did not run, with `score` as the metric, to be maximised.

    `ExperimentAnalysis` looks for a file of each trial's results; of these each has one, which is known. Without:
    `Run.rows`, a table of the same.
    """
    import pandas as pd
    from ray.tune import ExperimentAnalysis, ResultGrid
    from ray.tune.utils import flatten_dict

    class Analysis(ExperimentAnalysis):  # type: ignore[misc]
        def _fetch_trial_dataframe(self, trial: Any) -> pd.DataFrame:
            return pd.DataFrame([flatten_dict(trial.last_result)])

    state = f"{folder}/experiment_state.json"  # which is not read where trials are given
    analysis = Analysis(
        state, storage_filesystem=filesystem, trials=list(trials), default_metric="score", default_mode="max"
    )
    return ResultGrid(analysis)
