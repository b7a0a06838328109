"""Where the workers of a training meet: on the network by which the cluster's nodes know each other.

Gloo and NCCL take the interface that a host's own name resolves to, which on Debian is the loopback's (127.0.1.1), or
the first that they find. Nodes that cannot reach each other are told in a line, instead of by a time-out of theirs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import ray
from ray.train.torch import TorchConfig

REACHED_WITHIN_S = 20.0
Place = tuple[str, int]  # address and port


class MeetingConfig(TorchConfig):  # type: ignore[misc]
    """Ray Train's way to set up workers of torch, which also sees to it that they meet."""

    @property
    def backend_cls(self) -> type:
        """Ray's backend with what comes before."""
        return _meeting(super().backend_cls)


def _meeting(backend: type) -> type:
    class Meeting(backend):  # type: ignore[misc, valid-type]
        def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
            """On all workers, in this order; a failure ends the training with its line."""
            worker_group.execute(take_interface)
            if len(worker_group) > 1:
                places = worker_group.execute(listen)
                for unreached in worker_group.execute(reach, places):
                    if unreached:
                        raise RuntimeError(unreached)
            super().on_start(worker_group, backend_config)

    return Meeting


def take_interface() -> None:
    """Names the interface of the node's own address for Gloo and NCCL, where the user has named none."""
    name = interface_of(ray.util.get_node_ip_address(), addresses_here())
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # this one, and not all that begin so


def addresses_here() -> dict[str, list[str]]:
    """By interface, IPv4 and IPv6, without the zone behind a %."""
    import psutil  # Ray brings it, and finds it once it is imported itself

    families = (socket.AF_INET, socket.AF_INET6)
    found = psutil.net_if_addrs().items()
    return {name: [each.address.partition("%")[0] for each in some if each.family in families] for name, some in found}


def interface_of(address: str, interfaces: Mapping[str, Sequence[str]]) -> str | None:
    """Whose address it is; None where it is nobody's here, as behind a translation of addresses."""
    wanted = ip_address(address)  # which has several texts
    return next((name for name, some in interfaces.items() if wanted in map(ip_address, some)), None)


def listen() -> Place:
    """Accepts connections of a while, in a thread: where others may try to reach this worker."""
    address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, 0), family=family)
    server.settimeout(3 * REACHED_WITHIN_S)
    threading.Thread(target=_accept, args=(server,), name="reached", daemon=True).start()
    return address, server.getsockname()[1]


def _accept(server: socket.socket) -> None:
    with server, contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


def reach(places: Sequence[Place]) -> str:
    """Whom of the others this worker does not reach, in a line; empty where all is well."""
    here = ray.util.get_node_ip_address()
    for place in places:
        try:
            socket.create_connection(place, REACHED_WITHIN_S).close()
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            return (
                f"workers of a training connect to each other, and the node {here} does not reach {place[0]} "
                f"({reason}): is there a firewall between them, or does Ray know them by an address of another network?"
            )
    return ""
