"""Which interface workers of a training take, and what is said where they do not reach each other."""

import contextlib
import os
import socket

import pytest
import ray

from tvt_ray.cluster import meeting

# A Debian host, whose own name resolves to 127.0.1.1, with two cards, and Docker's bridge.
HOST = {
    "lo": ["127.0.0.1", "::1"],
    "docker0": ["172.17.0.1"],
    "eth0": ["192.168.1.20", "fe80::1c", "2001:db8::20"],
    "ib0": ["10.0.0.20"],
    "down0": [],
}


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.168.1.20", "eth0"),
        ("10.0.0.20", "ib0"),
        ("127.0.0.1", "lo"),  # a cluster of one machine
        ("127.0.1.1", None),
        ("2001:0DB8:0:0:0:0:0:20", "eth0"),
        ("52.1.2.3", None),
    ],
)
def test_the_interface_is_that_of_the_nodes_address(address, name):
    assert meeting.interface_of(address, HOST) == name


def test_it_is_named_for_gloo_and_nccl_unless_somebody_did(monkeypatch):
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.20")
    monkeypatch.setattr(meeting, "addresses_here", lambda: HOST)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth")
    meeting.take_interface()
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("ib0", "eth")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME")
    meeting.take_interface()
    assert os.environ["NCCL_SOCKET_IFNAME"] == "=ib0"


def test_interfaces_of_this_machine_have_the_loopback():
    assert meeting.interface_of("127.0.0.1", meeting.addresses_here()) == "lo"


def test_who_listens_is_reached_and_who_does_not_is_named(monkeypatch):
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    place = meeting.listen()
    assert meeting.reach([place, place]) == ""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        closed = server.getsockname()
    line = meeting.reach([place, closed])
    assert "the node 127.0.0.1 does not reach 127.0.0.1 (Connection refused): is there a firewall" in line
    assert "\n" not in line


def test_who_never_answers_is_named_in_time(monkeypatch):
    """A full queue drops what asks to connect, as a firewall does."""
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(meeting, "REACHED_WITHIN_S", 0.3)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        place = server.getsockname()
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(place)
        assert "(no answer)" in meeting.reach([place])
