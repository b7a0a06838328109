"""The Ray cluster that a run is on: joining or starting it, and waiting for machines that it has yet to start."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import Meter, say

_connected: list[str] = []  # addresses that `connect` joined, and `disconnect` has to leave


def connect(address: str | None) -> None:
    """Joins the cluster at `address` or RAY_ADDRESS, or starts Ray on this machine. Idempotent."""
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None
    _connected.append(address)
    url = context.dashboard_url
    resources = ray.cluster_resources()
    where = "on this machine" if address == "local" else f"at {address}"
    gpus = f", {resources['GPU']:g} GPUs" if "GPU" in resources else ""
    say(f"ray: {resources.get('CPU', 0):g} CPUs{gpus} {where}" + (f"; dashboard http://{url}" if url else ""))


def disconnect() -> None:
    """Leaves the cluster that `connect` joined, or ends the one that it started; else does nothing.

    Until then Ray's threads may print, such as the last log lines of a node that died.
    """
    if _connected:
        _connected.clear()
        ray.shutdown()


def driver_node() -> NodeAffinitySchedulingStrategy:
    """For actors that live as long as the run: on the driver's node, which is not a spot machine."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def wait_for_gpus(wanted: int, timeout_s: float) -> None:
    """Asks the cluster for `wanted` GPUs and returns when so many have joined: an autoscaler starts machines for them.

    By placement groups, which go with this driver, killed or not; `autoscaler.sdk.request_resources` would outlive it
    and keep machines paid for. Raises RunError when they have not come in time.
    """
    if num_gpus() >= wanted:
        return
    groups = [placement_group([{"GPU": 1}]) for _ in range(wanted)]
    deadline, joined = time.monotonic() + timeout_s, 0
    try:
        with Meter("waiting for GPUs", wanted, "GPUs") as meter:
            while (now := num_gpus()) < wanted:
                meter.advance(max(now - joined, 0))
                joined = max(now, joined)
                if time.monotonic() > deadline:
                    raise RunError(
                        f"{now} of {wanted} GPUs (search.min_gpus) joined the cluster within {timeout_s:.0f} s "
                        "(search.gpu_timeout_s)"
                    )
                time.sleep(1)
    finally:
        for group in groups:
            remove_placement_group(group)


def alive_nodes() -> list[dict[str, Any]]:
    """Of the connected cluster, now, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def num_gpus() -> int:
    """Of the connected cluster, now."""
    return int(ray.cluster_resources().get("GPU", 0))
