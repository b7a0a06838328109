"""Machines of namespaces, and the cluster's file for them. The laboratory is `make cluster-lab`, of the night."""

import copy
import os
import shutil
from types import SimpleNamespace

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from benchmarks import namespaces
from benchmarks.cluster_lab import HEAD, WORKERS, cluster_file
from tvt_ray.errors import RunError, UsageError


def possible():
    try:
        namespaces.check_host()
    except UsageError:
        return False
    return True


def test_what_is_missing_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name in ("sshd", "rsync") else f"/bin/{name}")
    with pytest.raises(UsageError, match=r"need sshd \(openssh-server\), rsync \(rsync\)$"):
        namespaces.check_host()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="by root on Linux"):
        namespaces.check_host()


def test_the_shipped_file_with_the_laboratorys_addresses_is_one_that_ray_takes(tmp_path):
    machines = {number: SimpleNamespace(address=f"10.77.0.{number}") for number in (HEAD, *WORKERS)}
    file = cluster_file(SimpleNamespace(machines=machines, key=tmp_path / "key"))
    assert file["provider"] == {"type": "local", "head_ip": "10.77.0.1", "worker_ips": ["10.77.0.2", "10.77.0.3"]}
    assert "tvt_env" not in str(file["head_start_ray_commands"] + file["worker_start_ray_commands"])
    assert "--num-cpus=1" in file["worker_start_ray_commands"][-1]
    assert not any("uv " in command for command in file["setup_commands"])
    validate_config(prepare_config(copy.deepcopy(file)))


@pytest.mark.night
@pytest.mark.skipif(not possible(), reason="needs root, Linux, sshd and rsync")
def test_machines_have_networks_processes_and_homes_of_their_own():
    """As Debian's hosts: their own name is the loopback's."""
    with namespaces.laboratory() as lab:
        one, two = lab.machine(1), lab.machine(2)
        assert one.run("hostname; echo ~; getent hosts $(hostname)").stdout.split() == [
            *("tvtlab1", "/tmp/home"),
            *("127.0.1.1", "tvtlab1"),
        ]
        one.run("touch /tmp/mine")
        assert two.run("ls /tmp").stdout.split() == ["home"]
        two.run("(python3 -m http.server --bind 10.77.0.2 8000 < /dev/null > /dev/null 2>&1 &)")
        reach = "python3 -c \"import urllib.request as r; r.urlopen('http://10.77.0.2:8000', timeout=5)\""
        one.run(f"for i in 1 2 3 4 5; do {reach} && exit 0; sleep 0.5; done; exit 1")
        lab.lose(2)
        with pytest.raises(RunError):
            one.run(reach)
        assert lab.machine(2).run("pgrep -f [h]ttp.server", check=False).returncode
