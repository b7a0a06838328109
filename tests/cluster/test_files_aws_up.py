"""cluster.yaml with `ray up` and `ray down` as commands, against a local stand-in of EC2 and machines that say yes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.cluster.test_files_aws import REGION, deploy, filled_in
from tests.conftest import REPO

pytestmark = [pytest.mark.night, pytest.mark.slow]

RAY = str(Path(sys.executable).parent / "ray")
# A login: it answers at once, and keeps what it was asked. rsync's machine takes all files.
LOGIN = """#!/bin/sh
echo "$0 $*" >> "$LOGINS"
"""


class Account:
    """An empty account behind an address of this machine, and the folder from which somebody calls `ray up`."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home, self.logins, self.file = home, home / "logins", home / "cluster.yaml"
        programs = home / "bin"
        programs.mkdir()
        for name in ("ssh", "rsync"):
            (programs / name).write_text(LOGIN)
            (programs / name).chmod(0o755)
        self.variables = {
            "HOME": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "LOGINS": str(self.logins),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }

    def ray(self, *words: str) -> str:
        """What a command of Ray prints. Fails where it does."""
        variables = {**os.environ, **self.variables}
        done = subprocess.run(
            [RAY, *words], env=variables, cwd=REPO, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def machines(self) -> list[dict[str, Any]]:
        """Those that run."""
        found = boto3.client("ec2", REGION).describe_instances()["Reservations"]
        every = [machine for each in found for machine in each["Instances"]]
        return [machine for machine in every if machine["State"]["Name"] in ("pending", "running")]

    def holdings(self) -> str:
        """Groups, roles, profiles, and templates: what an account would go on holding."""
        ec2, iam = boto3.client("ec2", REGION), boto3.client("iam", REGION)
        return json.dumps(
            [
                ec2.describe_security_groups()["SecurityGroups"],
                [role["RoleName"] for role in iam.list_roles()["Roles"]],
                [profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]],
                ec2.describe_launch_templates()["LaunchTemplates"],
                ec2.describe_volumes()["Volumes"],
            ],
            default=str,
        )


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    account = Account(tmp_path, f"http://{host}:{port}")
    for name, value in account.variables.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    try:
        yield account
    finally:
        server.stop()


def tags(machine: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in machine["Tags"]}


def test_ray_up_launches_what_is_written_twice_changes_nothing_and_ray_down_leaves_nothing(account: Account) -> None:
    group = deploy()
    written = filled_in(group)
    account.file.write_text(yaml.safe_dump(written))
    account.ray("get-auth-token", "--generate")
    before = account.holdings()

    account.ray("up", "--yes", str(account.file))
    (head,) = account.machines()
    config = written["available_node_types"]["head"]["node_config"]
    assert (head["InstanceType"], head["ImageId"]) == (config["InstanceType"], config["ImageId"])
    assert [each["GroupId"] for each in head["SecurityGroups"]] == [group]
    assert head["IamInstanceProfile"]["Arn"].endswith("/tvt-ray-head")
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert head["Placement"]["AvailabilityZone"] in written["provider"]["availability_zone"].split(",")
    assert tags(head)["ray-cluster-name"] == "tvt-ray"
    assert (tags(head)["ray-node-type"], tags(head)["ray-user-node-type"]) == ("head", "head")
    asked = account.logins.read_text()
    for command in [*written["setup_commands"], *written["head_start_ray_commands"]]:
        assert command.split()[-1] in asked

    first = tags(head)
    account.ray("up", "--yes", str(account.file))
    (again,) = account.machines()
    assert again["InstanceId"] == head["InstanceId"]
    assert tags(again) == first

    account.ray("down", "--yes", str(account.file))
    assert account.machines() == []
    assert account.holdings() == before
