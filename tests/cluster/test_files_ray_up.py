"""cluster.yaml and cluster-onprem.yaml, without a cluster: what `ray up` takes, paths, and commands as they are run."""

import configparser
import copy
import re
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from pydantic.alias_generators import to_pascal
from ray._private.authentication.authentication_token_setup import AUTH_MODE_ENV_VAR, _get_default_token_path
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import INSTALLED_AT, LAUNCHED, load, pins, text_of
from tests.conftest import REPO


@pytest.fixture(params=LAUNCHED)
def launched(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` prepares and checks it. Raises what `ray up` would."""
    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    return whole


def commands_of(config: dict[str, Any]) -> list[str]:
    return [command for key, value in config.items() if key.endswith("_commands") for command in value]


def programs(command: str) -> list[str]:
    """The first word of every simple command in a shell line, after its assignments."""
    found = []
    for part in re.split(r";|&&|\|\|?|\bthen\b|\bif\b", re.sub(r"'[^']*'", "''", command)):
        words = [word for word in part.split() if not re.match(r"\w+=", word)]
        found += words[:1]
    return found


def test_ray_accepts_the_file(launched):
    whole = prepared(launched)
    assert whole["head_node_type"] in whole["available_node_types"]


def test_ray_rejects_a_misspelt_key(launched):
    for key in launched.keys() - {"provider"}:
        broken = {f"{name}x" if name == key else name: value for name, value in launched.items()}
        with pytest.raises(Exception, match=f"{key}x|{key}"):
            prepared(broken)
    broken = copy.deepcopy(launched)
    broken["provider"]["type"] = "awss"
    with pytest.raises(Exception, match="awss"):
        prepared(broken)


def test_ray_rejects_a_misspelt_key_of_a_node_type():
    broken = load("cluster.yaml")
    broken["available_node_types"]["gpu_worker"]["min_worker"] = 0
    with pytest.raises(Exception, match="min_worker"):
        prepared(broken)


class Provider(BaseModel):
    """Ray's schema lets a provider hold anything, and looks into no instance: a misspelt field is found here."""

    model_config = ConfigDict(extra="forbid")


class AwsProvider(Provider):
    type: Literal["aws"]
    region: str
    availability_zone: str
    cache_stopped_nodes: Literal[False]  # a stopped machine's disk goes on costing


class ListProvider(Provider):
    type: Literal["local"]
    head_ip: str
    worker_ips: Annotated[list[str], Field(min_length=1)]


class Ec2(BaseModel):
    """What cluster.yaml gives to RunInstances."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_pascal)


class Ebs(Ec2):
    volume_size: PositiveInt  # GiB
    volume_type: Literal["gp3"]
    delete_on_termination: Literal[True]  # else a second disk goes on costing


class BlockDevice(Ec2):
    device_name: str
    ebs: Ebs


class MarketOptions(Ec2):
    market_type: Literal["spot"]


class Metadata(Ec2):
    """Who runs on a machine gets its credentials by a token of a session alone (IMDSv2), and no container does."""

    http_tokens: Literal["required"]
    http_put_response_hop_limit: Literal[1]


class Profile(Ec2):
    name: Literal["tvt-ray-head"]  # of aws/access.yaml


class Instance(Ec2):
    instance_type: str
    image_id: Annotated[str, Field(pattern="^ami-")]
    security_group_ids: Annotated[list[Annotated[str, Field(pattern="^sg-")]], Field(min_length=1)]
    iam_instance_profile: Profile | None = None
    metadata_options: Metadata
    instance_market_options: MarketOptions | None = None
    block_device_mappings: list[BlockDevice]


def test_providers_and_instances_have_no_unknown_fields():
    aws = load("cluster.yaml")
    provider = AwsProvider.model_validate(aws["provider"])
    assert all(zone.startswith(provider.region) for zone in provider.availability_zone.split(","))
    machines = {name: Instance.model_validate(t["node_config"]) for name, t in aws["available_node_types"].items()}
    assert machines["gpu_worker"].instance_market_options
    assert machines["head"].instance_market_options is None
    assert machines["head"].iam_instance_profile
    assert machines["gpu_worker"].iam_instance_profile is None
    listed = ListProvider.model_validate(load("cluster-onprem.yaml")["provider"])
    assert listed.head_ip not in listed.worker_ips


def test_gpu_workers_scale_from_zero_and_the_head_takes_no_work():
    types = prepared(load("cluster.yaml"))["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert types["head"]["max_workers"] == 0
    assert types["gpu_worker"]["min_workers"] == 0
    assert 0 < types["gpu_worker"]["max_workers"] <= load("cluster.yaml")["max_workers"]
    listed = load("cluster-onprem.yaml")
    whole = prepared(listed)["available_node_types"]["local.cluster.node"]
    assert whole["min_workers"] == whole["max_workers"] == len(listed["provider"]["worker_ips"])


def test_commands_are_shell_and_need_no_state(launched):
    """Every command has a shell to itself: programs go by path, or are the system's; nothing is set for the next."""
    commands = commands_of(launched)
    assert commands
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
        allowed = {"chmod", "curl", "sh", "ln", "ulimit", "command", "fi"}
        assert {p for p in programs(command) if not p.startswith("~/")} <= allowed, command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home where uv, ray, python and curl only write down how they were called, and with which token setting."""
    stub = f'#!/bin/sh\necho "${{0##*/}} $* [${AUTH_MODE_ENV_VAR}]" >> {tmp_path}/calls\n'
    for name in (".local/bin/uv", "tvt_env/bin/ray", "tvt_env/bin/python", "system/curl", ".ray/auth_token"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(stub)
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_commands_run_each_in_its_own_shell(kind, launched, home):
    """On programs that do nothing: paths and quoting are right, and what a command needs it has of itself."""
    whole = prepared(launched)
    system = {"PATH": f"{home / 'system'}:/usr/bin:/bin", "HOME": str(home), "RAY_HEAD_IP": "192.0.2.10"}
    for command in [*whole[f"{kind}_setup_commands"], *whole[f"{kind}_start_ray_commands"]]:
        subprocess.run(["bash", "-c", command], env=system, check=True, stdout=subprocess.DEVNULL)
    calls = (home / "calls").read_text().splitlines()
    (start,) = (call for call in calls if call.startswith("ray start"))
    assert start.endswith(" [token]")
    assert ("--head" if kind == "head" else "--address=192.0.2.10:6379") in start
    install = f"uv pip install --quiet --python {home}/tvt_env/bin/python --no-deps -e {home}/tvt_ray"
    assert any(call.startswith(install) for call in calls)
    assert (home / ".local/bin/ray").resolve() == home / "tvt_env/bin/ray"
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "bad", ["source env/bin/activate", "conda activate x && ray stop", "export A=1", "cd x", ". x"]
)
def test_a_command_that_leans_on_state_would_be_seen(bad):
    assert any(program in {"source", "conda", "export", "cd", "."} for program in programs(bad))


def test_every_path_that_a_file_mentions_exists(launched):
    mounts = launched["file_mounts"]
    for remote, local in mounts.items():
        assert local.startswith("~/.ray/") or (REPO / local).exists(), local
        assert local.startswith("~/.ray/") or remote == str(INSTALLED_AT / local)
    for path in re.findall(rf"{INSTALLED_AT}[\w./-]*", " ".join(commands_of(launched))):
        assert path == str(INSTALLED_AT) or path in mounts, path


def test_what_the_installation_reads_is_mounted(launched):
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    readme = setup["metadata"]["long_description"].removeprefix("file:").strip()
    needed = ["pyproject.toml", "setup.cfg", "requirements-linux.txt", "tvt_ray", readme]
    needed += [setup["metadata"]["license_files"]]
    assert {str(INSTALLED_AT / name) for name in needed} <= launched["file_mounts"].keys()


def test_machines_install_by_hash_and_nothing_else(launched):
    whole = prepared(launched)
    for key in ("head_setup_commands", "worker_setup_commands"):
        requirements, package = (command for command in whole[key] if "pip install" in command)
        assert requirements.endswith(f"--require-hashes -r {INSTALLED_AT}/requirements-linux.txt")
        assert package.endswith(f"--no-deps -e {INSTALLED_AT}")


def test_every_requirement_has_hashes_and_the_version_of_the_constraints():
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    blocks = re.split(r"\n(?=[a-z])", text_of("requirements-linux.txt"))[1:]
    locked = dict(re.match(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.+]+)", block).groups() for block in blocks)
    assert all("--hash=sha256:" in block for block in blocks)
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["weights"]
    assert {name.lower() for name in re.findall(r"^([\w-]+)", wanted, re.MULTILINE)} <= locked.keys()
    assert "boto3" in locked  # Ray's autoscaler calls AWS by it
    both = pins().keys() & locked.keys()
    assert [pins()[name] for name in both] == [locked[name] for name in both]


def test_the_constraints_pin_every_requirement():
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    required = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], re.MULTILINE)
    assert len(required) > 10
    assert set(required) <= pins().keys()


def test_every_node_shows_a_token(launched):
    token = f"~/{_get_default_token_path().relative_to(Path.home())}"
    assert launched["file_mounts"][token] == token
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start = launched[key]
        assert stop == "~/tvt_env/bin/ray stop"
        assert "ray start" in start  # the very words that `ray up` looks for
        assert f"{AUTH_MODE_ENV_VAR}=token" in start.split()
    assert "ray stop" not in " ".join(c for c in commands_of(launched) if "bin/ray" not in c)
    assert "--dashboard-host=127.0.0.1" in launched["head_start_ray_commands"][1]  # by `ray dashboard` alone
    assert "--autoscaling-config=" in launched["head_start_ray_commands"][1]
