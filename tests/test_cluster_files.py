"""cluster.yaml, cluster-onprem.yaml, kuberay/ and docs/cluster.md, without a cluster: schemas, paths, and commands that
the project's own parser (and Ray's) must take."""

import configparser
import copy
import re
import shlex
import subprocess
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import click
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from pydantic.alias_generators import to_pascal
from ray._private.authentication.authentication_token_setup import AUTH_MODE_ENV_VAR, _get_default_token_path
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from tests.kuberay import PersistentVolumeClaim, RayJob
from tvt_ray.cli import add_distill, add_search, build_parser, overrides, script_parser
from tvt_ray.config import load_config

REPO = Path(__file__).parents[1]
LAUNCHED = ("cluster.yaml", "cluster-onprem.yaml")
MANIFEST = "kuberay/rayjob.yaml"
DOCUMENTED = (*LAUNCHED, MANIFEST, "docs/cluster.md")
INSTALLED_AT = PurePosixPath("~/tvt_ray")
IMAGE_FOLDER = PurePosixPath("/home/ray/tvt_ray")


def text_of(name: str) -> str:
    return (REPO / name).read_text()


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text_of(name)))


@pytest.fixture(params=LAUNCHED)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


@pytest.fixture
def manifest() -> dict[str, Any]:
    return load(MANIFEST)


# ray up ---------------------------------------------------------------------------------------------------------------


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


def test_ray_accepts_the_file(cluster):
    whole = prepared(cluster)
    assert whole["head_node_type"] in whole["available_node_types"]


def test_ray_rejects_a_misspelt_key(cluster):
    for key in cluster.keys() - {"provider"}:
        broken = {f"{name}x" if name == key else name: value for name, value in cluster.items()}
        with pytest.raises(Exception, match=f"{key}x|{key}"):
            prepared(broken)
    broken = copy.deepcopy(cluster)
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


class BlockDevice(Ec2):
    device_name: str
    ebs: Ebs


class MarketOptions(Ec2):
    market_type: Literal["spot"]


class Instance(Ec2):
    instance_type: str
    image_id: Annotated[str, Field(pattern="^ami-")]
    instance_market_options: MarketOptions | None = None
    block_device_mappings: list[BlockDevice]


def test_providers_and_instances_have_no_unknown_fields():
    aws = load("cluster.yaml")
    provider = AwsProvider.model_validate(aws["provider"])
    assert all(zone.startswith(provider.region) for zone in provider.availability_zone.split(","))
    machines = {name: Instance.model_validate(t["node_config"]) for name, t in aws["available_node_types"].items()}
    assert machines["gpu_worker"].instance_market_options
    assert machines["head"].instance_market_options is None
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


def test_commands_are_shell_and_need_no_state(cluster):
    """Every command has a shell to itself: programs go by path, or are the system's; nothing is set for the next."""
    commands = commands_of(cluster)
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
def test_commands_run_each_in_its_own_shell(kind, cluster, home):
    """On programs that do nothing: paths and quoting are right, and what a command needs it has of itself."""
    whole = prepared(cluster)
    system = {"PATH": f"{home / 'system'}:/usr/bin:/bin", "HOME": str(home), "RAY_HEAD_IP": "192.0.2.10"}
    for command in [*whole[f"{kind}_setup_commands"], *whole[f"{kind}_start_ray_commands"]]:
        subprocess.run(["bash", "-c", command], env=system, check=True, stdout=subprocess.DEVNULL)
    calls = (home / "calls").read_text().splitlines()
    (start,) = (call for call in calls if call.startswith("ray start"))
    assert start.endswith(" [token]")
    assert ("--head" if kind == "head" else "--address=192.0.2.10:6379") in start
    install = f"uv pip install --quiet --python {home}/tvt_env/bin/python -e {home}/tvt_ray"
    assert any(call.startswith(install) for call in calls)
    assert (home / ".local/bin/ray").resolve() == home / "tvt_env/bin/ray"
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "bad", ["source env/bin/activate", "conda activate x && ray stop", "export A=1", "cd x", ". x"]
)
def test_a_command_that_leans_on_state_would_be_seen(bad):
    assert any(program in {"source", "conda", "export", "cd", "."} for program in programs(bad))


def test_every_path_that_a_file_mentions_exists(cluster):
    mounts = cluster["file_mounts"]
    for remote, local in mounts.items():
        assert local.startswith("~/.ray/") or (REPO / local).exists(), local
        assert local.startswith("~/.ray/") or remote == str(INSTALLED_AT / local)
    for path in re.findall(rf"{INSTALLED_AT}[\w./-]*", " ".join(commands_of(cluster))):
        assert path == str(INSTALLED_AT) or path in mounts, path


def test_what_the_installation_reads_is_mounted(cluster):
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    readme = setup["metadata"]["long_description"].removeprefix("file:").strip()
    needed = ["pyproject.toml", "setup.cfg", "constraints.txt", "tvt_ray", readme, setup["metadata"]["license_files"]]
    assert {str(INSTALLED_AT / name) for name in needed} <= cluster["file_mounts"].keys()


def test_installs_hold_to_the_constraints(cluster):
    whole = prepared(cluster)
    for key in ("head_setup_commands", "worker_setup_commands"):
        installs = [command for command in whole[key] if f"-e {INSTALLED_AT}" in command]
        assert len(installs) == 1
        assert f"-c {INSTALLED_AT}/constraints.txt" in installs[0]


def pins() -> dict[str, str]:
    lines = [line for line in text_of("constraints.txt").splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_the_constraints_pin_every_requirement():
    setup = configparser.ConfigParser()
    setup.read(REPO / "setup.cfg")
    required = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], re.MULTILINE)
    assert len(required) > 10
    assert set(required) <= pins().keys()


def test_every_node_shows_a_token(cluster):
    token = f"~/{_get_default_token_path().relative_to(Path.home())}"
    assert cluster["file_mounts"][token] == token
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start = cluster[key]
        assert stop == "~/tvt_env/bin/ray stop"
        assert "ray start" in start  # the very words that `ray up` looks for
        assert f"{AUTH_MODE_ENV_VAR}=token" in start.split()
    assert "ray stop" not in " ".join(c for c in commands_of(cluster) if "bin/ray" not in c)
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][1]  # by `ray dashboard` alone
    assert "--autoscaling-config=" in cluster["head_start_ray_commands"][1]


# KubeRay --------------------------------------------------------------------------------------------------------------


def renamed_keys(value: Any) -> list[Any]:
    """Copies of a document, each with one key misspelt; the keys of rayStartParams are Ray's and free."""
    if isinstance(value, list):
        return [[*value[:i], copied, *value[i + 1 :]] for i, item in enumerate(value) for copied in renamed_keys(item)]
    if not isinstance(value, dict):
        return []
    copies = [{f"{k}x" if k == key else k: v for k, v in value.items()} for key in value]
    inner = {key: renamed_keys(item) for key, item in value.items() if key != "rayStartParams"}
    return [*copies, *({**value, key: copied} for key, found in inner.items() for copied in found)]


def test_the_manifest_has_the_fields_that_kuberay_documents(manifest):
    spec = RayJob.model_validate(manifest).spec
    cluster = spec.ray_cluster_spec
    (gpu,) = cluster.worker_group_specs
    assert spec.shutdown_after_job_finishes
    assert cluster.auth_options.mode == "token"
    assert cluster.enable_in_tree_autoscaling
    assert gpu.min_replicas == gpu.replicas == 0
    assert gpu.template.spec.containers[0].resources.limits["nvidia.com/gpu"] == 1
    assert cluster.head_group_spec.ray_start_params["num-cpus"] == "0"


def test_any_misspelt_field_of_the_manifest_is_an_error(manifest):
    broken = renamed_keys(manifest)
    assert len(broken) > 70
    for document in broken:
        with pytest.raises(ValidationError):
            RayJob.model_validate(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "ray.io/v1alpha1"),
        ("metadata.name", "TVT_search"),
        ("spec.submissionMode", "K8SJobMode"),
        ("spec.shutdownAfterJobFinishes", False),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.volumes.0.name", "shred"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplicas", 1),
        ("spec.rayClusterSpec.workerGroupSpecs.0.replicas", 5),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resources.requests.memory", "13Gi"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resources.limits.nvidia.com/gpu", 2),
    ],
)
def test_wrong_values_of_the_manifest_are_errors(path, value, manifest):
    *way, last = path.replace("nvidia.com", "nvidia~com").split(".")
    place: Any = manifest
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    assert last.replace("~", ".") in place
    place[last.replace("~", ".")] = value
    with pytest.raises(ValidationError):
        RayJob.model_validate(manifest)


def test_run_folders_are_on_the_claim_that_every_pod_mounts(manifest):
    claim = PersistentVolumeClaim.model_validate(load("kuberay/runs-pvc.yaml"))
    spec = RayJob.model_validate(manifest).spec
    for pod in (group.template.spec for group in spec.ray_cluster_spec.groups):
        assert [volume.persistent_volume_claim.claim_name for volume in pod.volumes] == [claim.metadata.name]
        assert [mount.mount_path for mount in pod.containers[0].volume_mounts] == ["/shared"]
    (args,) = parse_project_commands(spec.entrypoint)
    assert str(args.run_dir).startswith("/shared/")


def test_image_manifest_and_constraints_are_of_one_ray(manifest):
    dockerfile, version = text_of("kuberay/Dockerfile"), pins()["ray"]
    cluster = RayJob.model_validate(manifest).spec.ray_cluster_spec
    assert cluster.ray_version == version
    assert f"FROM rayproject/ray:{version}-py311-cpu\n" in dockerfile
    assert "pip install --no-cache-dir -e . -c constraints.txt" in dockerfile
    images = {container.image for group in cluster.groups for container in group.template.spec.containers}
    assert len(images) == 1
    assert dockerfile.count(images.pop()) == 2  # docker build, docker push


def test_the_image_holds_what_the_manifest_names():
    dockerfile = text_of("kuberay/Dockerfile")
    assert f"WORKDIR {IMAGE_FOLDER}\n" in dockerfile
    copied = [name for line in re.findall(r"COPY --chown=\S+ (.*) \S+", dockerfile) for name in line.split()]
    assert {"constraints.txt", "setup.cfg", "pyproject.toml", "tvt_ray", "configs", "search.py"} <= set(copied)
    assert all((REPO / name).exists() for name in copied)
    named = re.findall(rf"{IMAGE_FOLDER}/([\w./-]+)", text_of(MANIFEST))
    assert named
    for name in named:
        assert (REPO / name).is_file()
        assert name.split("/")[0] in copied


# Commands in comments and in docs/cluster.md --------------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    """Lines without their comment signs, and continued ones joined."""
    plain = re.sub(r"^ *# ?", "", text, flags=re.MULTILINE)
    return re.sub(r"\s*\\\n\s*", " ", plain).splitlines()


def parse_project_commands(text: str) -> list[Any]:
    """What the project's own parsers make of every search.py, distill.py and tvt command in a text, prose included."""
    parsers = {
        "search.py": script_parser("search.py", add_search),
        "distill.py": script_parser("distill.py", add_distill),
    }
    found = []
    for line in lines_of(text):
        for script, flags in re.findall(r"\bpython \S*?\b(search\.py|distill\.py)\b([^`]*)", line):
            found.append(parsers[script].parse_args(shlex.split(flags, comments=True)))
        for flags in re.findall(r"(?:^\s*|-- |`)tvt (\w[^`]*)", line):
            found.append(build_parser().parse_args(shlex.split(flags, comments=True)))
    return found


def ray_commands(text: str) -> list[list[str]]:
    """The words of every line that is a `ray …` command, without its column of explanation."""
    starts = (re.match(r"\s*(?:RAY_\w+=\S+ )*ray ([a-z].*)", line) for line in lines_of(text))
    return [shlex.split(re.split(r" {3,}", start[1])[0], comments=True) for start in starts if start]


@pytest.mark.parametrize(("name", "least"), list(zip(DOCUMENTED, (1, 1, 3, 9), strict=True)))
def test_documented_commands_parse(name, least):
    parsed = parse_project_commands(text_of(name))
    assert len(parsed) >= least
    for args in parsed:
        config = getattr(args, "config", None)
        assert config is None or (REPO / str(config).removeprefix(f"{IMAGE_FOLDER}/")).is_file()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_settings_are_settings(name):
    for args in parse_project_commands(text_of(name)):
        if hasattr(args, "set"):
            config = getattr(args, "config", None)
            load_config(config and REPO / str(config).removeprefix(f"{IMAGE_FOLDER}/"), overrides(args))


@pytest.mark.parametrize("flag", ["--rundir x", "--num-sample 3", "--top-k 2"])
def test_a_renamed_flag_would_be_seen(flag, capsys):
    with pytest.raises(SystemExit):
        parse_project_commands(f"#   ray job submit -- \\\n#     python search.py --seed 1 {flag}")
    assert capsys.readouterr().err


def parse_ray_command(words: list[str]) -> None:
    """Raises click.UsageError for what Ray's command line would not take."""
    command: click.Command = ray_cli
    while isinstance(command, click.Group):
        name, *words = words
        if name not in command.commands:
            raise click.UsageError(f"ray has no command {name}")
        command = command.commands[name]
    command.make_context(name, list(words))


@pytest.mark.parametrize(("name", "least"), list(zip((*LAUNCHED, "docs/cluster.md"), (5, 5, 15), strict=True)))
def test_documented_ray_commands_are_rays(name, least):
    found = ray_commands(text_of(name))
    assert len(found) >= least
    for words in found:
        parse_ray_command(words)
        for word in words:
            assert not word.endswith(".yaml") or (REPO / word).is_file()


@pytest.mark.parametrize("line", ["ray upp cluster.yaml", "ray job submit --adress x -- python search.py"])
def test_a_wrong_ray_command_would_be_seen(line):
    (words,) = ray_commands(line)
    with pytest.raises(click.UsageError):
        parse_ray_command(words)


def test_what_the_docs_name_exists():
    text = text_of("docs/cluster.md")
    headings = {
        re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    anchors = re.findall(r"\]\(#([\w-]+)\)", text)
    files = re.findall(r"(?:^|[\s`])((?:kuberay/|configs/)?[\w-]+\.yaml|kuberay/Dockerfile)", text)
    assert set(anchors) <= headings
    assert len(anchors) >= 3
    assert len(set(files)) >= 5
    assert all((REPO / name).is_file() for name in files)
