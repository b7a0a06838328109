"""Where private parts of Ray are touched, as few as there can be: each says why, and has a test that fails with Ray.

Seen and tested in Ray 2.59 and 2.60. Where a part has another form, what depends on it says so in one line.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import ray
from ray._private import services
from ray._private.gcs_utils import create_gcs_channel
from ray._private.services import get_ray_address_from_environment
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.job_config import JobConfig

from tvt_ray.errors import RunError

LOOPBACK = "127.0.0.1"
FAREWELL_S = 0.5  # that the end of a Train job waits for a helper


def ask_head(address: str, timeout_s: float) -> None:
    """One call to a cluster's head at HOST:PORT, with this process's token and TLS settings.

    `ray.init` asks a head that refuses for a minute, and writes a warning for each time. Raises grpc.RpcError, with
    UNAUTHENTICATED where the token is not the cluster's, and Ray's AuthenticationError where a token is asked for and
    there is none.
    """
    with create_gcs_channel(address) as channel:
        gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetClusterId(
            gcs_service_pb2.GetClusterIdRequest(), timeout=timeout_s
        )


def address_of_auto() -> str:
    """HOST:PORT of the head that `auto` means to Ray here: one that runs on this machine, or that it last joined.

    Raises ConnectionError where there is none.
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
    """
    config = JobConfig()
    config._py_driver_sys_path = _FoldersOfThisProcess()
    return config


@contextlib.contextmanager
def on_loopback() -> Iterator[dict[str, str]]:
    """Arguments with which a `ray.init` in the block starts a cluster that listens on 127.0.0.1 alone.

    Ray takes that address for a mistake and puts this machine's own in its place, and then listens on every interface.
    """
    original = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield {"_node_ip_address": LOOPBACK}
    finally:
        services.resolve_ip_for_localhost = original


def actor_of(trial: Any) -> Any:
    """The handle of a running trial's actor.

    Tune sends its actors nothing but `train`; what a worker reads next is sent to it by a method of its own, which Ray
    executes before the `train` that Tune submits after it.
    """
    try:
        actor = trial.temporary_state.ray_actor
    except AttributeError:
        raise RunError(f"this version of Ray ({ray.__version__}) does not say which actor a trial has") from None
    return actor


def forget_last_result(trial: Any) -> None:
    """Keeps Tune from asking a dead actor for the last result of its trial, which raises."""
    trial._default_result_or_future = None


@contextlib.contextmanager
def all_deaths_are_actor_errors() -> Iterator[None]:
    """Makes Tune treat whatever Ray says of a worker as that worker's death, for as long as the block runs.

    Ray has many exceptions for it that are no RayActorError (killed by the memory monitor, a runtime environment that
    could not be made, a node that left, an unschedulable actor …), and on those Tune ends the whole run.
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
    which waits for the actor to be done with stopping (Ray 2.60).
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
