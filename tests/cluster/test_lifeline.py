"""What a driver says when it has lost what it cannot live without."""

import socket
import time

import pytest

from tests.cluster.conftest import wait_until
from tvt_ray.cluster import lifeline

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def head(monkeypatch):
    """A port that answers until it is closed, in the place of a cluster's head."""
    monkeypatch.setattr(lifeline, "LOOK_INTERVAL_S", 0.1)
    monkeypatch.setattr(lifeline, "HEAD_PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


def test_a_head_that_is_gone_for_good_is_told_once(cluster, head):
    server, address = head
    reasons = []
    with lifeline.watched(address, reasons.append):
        time.sleep(1.0)
        assert reasons == []  # while it answers
        server.close()
        wait_until(lambda: reasons, 20)
        time.sleep(0.5)
    assert reasons == [f"Ray's head (GCS) at {address} is gone"]


def test_a_head_that_comes_back_in_time_is_no_loss(cluster, head, monkeypatch):
    monkeypatch.setattr(lifeline, "HEAD_PATIENCE_S", 30.0)
    server, address = head
    reasons = []
    with lifeline.watched(address, reasons.append):
        time.sleep(0.5)
        server.close()
        time.sleep(0.5)
        with socket.create_server(("127.0.0.1", int(address.partition(":")[2]))):
            time.sleep(0.5)
    assert reasons == []


def test_a_port_that_never_answered_is_no_lifeline(cluster, head):
    """A firewall may stand between; Ray's own connection lives all the same."""
    server, address = head
    server.close()
    reasons = []
    with lifeline.watched(address, reasons.append):
        time.sleep(1.5)
    assert reasons == []
