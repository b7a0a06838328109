"""kuberay/, without a cluster: fields that KubeRay documents, values that fit each other, and what the image holds.

KUBERAY_SCHEMA names KubeRay's own schema of a RayJob (ray.io_rayjobs.yaml of its release), which the nightly workflow
fetches: the manifest is held against it too.
"""

import os
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.files import IMAGE_FOLDER, MANIFEST, load, parse_project_commands, pins, text_of
from tests.conftest import REPO

CLAIM = "kuberay/runs-pvc.yaml"
SCHEMA = os.environ.get("KUBERAY_SCHEMA")
# What may stand in a field, of what these files use: of KubeRay 1.7 as Ray's "KubeRay CRD API reference" has it, and of
# Kubernetes. No package that is installed brings their schemas. rayStartParams are free: they are flags of `ray start`.
FIELDS = {
    "": "apiVersion kind metadata spec",
    "metadata": "name",
    "spec": """entrypoint submissionMode backoffLimit activeDeadlineSeconds shutdownAfterJobFinishes
        ttlSecondsAfterFinished rayClusterSpec containers volumes securityContext tolerations accessModes resources
        storageClassName""",
    "rayClusterSpec": """rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec
        workerGroupSpecs""",
    "authOptions": "mode",
    "autoscalerOptions": "idleTimeoutSeconds",
    "headGroupSpec": "rayStartParams template",
    "workerGroupSpecs": "groupName replicas minReplicas maxReplicas rayStartParams template",
    "template": "spec",
    "containers": "name image env resources volumeMounts",
    "env": "name value",
    "resources": "requests limits",
    "requests": "cpu memory nvidia.com/gpu storage",
    "limits": "cpu memory nvidia.com/gpu",
    "volumeMounts": "name mountPath",
    "volumes": "name persistentVolumeClaim",
    "persistentVolumeClaim": "claimName",
    "securityContext": "fsGroup",
    "tolerations": "key operator effect",
}
UNITS = {"": 1, "m": Decimal("0.001"), "Mi": 2**20, "Gi": 2**30}


def unknown_fields(value: Any, within: str = "") -> Iterator[str]:
    """Keys of a document that are not known where they stand."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(item, within)
    elif isinstance(value, dict) and within != "rayStartParams":
        for key, inner in value.items():
            if key not in FIELDS.get(within, "").split():
                yield f"{within}.{key}"
            yield from unknown_fields(inner, key)


def amount(quantity: str | int) -> Decimal:
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", str(quantity)).groups()
    return Decimal(number) * UNITS[unit]


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    """Of a CustomResourceDefinition's v1, under which a field that it does not name is an error."""
    (schema,) = (each["schema"] for each in definition["spec"]["versions"] if each["name"] == "v1")
    return closed(schema["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    free = "additionalProperties" in inner or inner.get("x-kubernetes-preserve-unknown-fields")
    return inner if free or not isinstance(inner.get("properties"), dict) else {**inner, "additionalProperties": False}


def errors_by(definition: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What is wrong with a resource's spec."""
    found = jsonschema.Draft7Validator(schema_of(definition)["properties"]["spec"]).iter_errors(document["spec"])
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in found]


@pytest.mark.skipif(SCHEMA is None, reason="KUBERAY_SCHEMA names no file")
def test_the_manifest_is_valid_by_kuberays_published_schema():
    definition = yaml.safe_load(Path(str(SCHEMA)).read_text())
    manifest = load(MANIFEST)
    assert definition["spec"]["names"]["kind"] == manifest["kind"]
    assert errors_by(definition, manifest) == []
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0  # or else it looks at nothing
    assert len(errors_by(definition, manifest)) == 1


def test_a_schema_refuses_what_it_does_not_name_and_values_of_another_kind():
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    group = {"type": "object", "required": ["groupName"], "properties": {"groupName": {"type": "string"}, "a": texts}}
    spec = {"type": "object", "properties": {"groups": {"type": "array", "items": group}}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"spec": spec}}}}
    definition = {"spec": {"versions": [{"name": "v1alpha1", "schema": {}}, version]}}
    assert errors_by(definition, {"spec": {"groups": [{"groupName": "gpu", "a": {"num-cpus": "0"}}]}}) == []
    assert sorted(
        errors_by(definition, {"spec": {"groups": [{"groupName": "gpu", "a": {"num-cpus": 0}, "b": 1}]}})
    ) == [
        "groups.0.a.num-cpus: 0 is not of type 'string'",
        "groups.0: Additional properties are not allowed ('b' was unexpected)",
    ]


@pytest.fixture
def job() -> dict[str, Any]:
    """The spec of the RayJob."""
    manifest = load(MANIFEST)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", manifest["metadata"]["name"])
    return dict(manifest["spec"])


def pods_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("name", [MANIFEST, CLAIM])
def test_every_field_is_one_that_kuberay_and_kubernetes_document(name):
    assert list(unknown_fields(load(name))) == []


def test_a_misspelt_or_misplaced_field_is_found():
    assert list(unknown_fields({"spec": {"containers": [{"nane": "a"}], "mode": 1}})) == [
        "containers.nane",
        "spec.mode",
    ]


def test_the_job_ends_with_its_cluster_and_asks_for_what_a_machine_has(job):
    cluster = job["rayClusterSpec"]
    (gpu,) = cluster["workerGroupSpecs"]
    assert job["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    assert job["shutdownAfterJobFinishes"] is True  # without it ttlSecondsAfterFinished is refused
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert gpu["minReplicas"] == gpu["replicas"] == 0 < gpu["maxReplicas"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}  # texts, as KubeRay wants them
    for pod in pods_of(job):
        requests, limits = (pod["containers"][0]["resources"][kind] for kind in ("requests", "limits"))
        assert {name: amount(value) for name, value in requests.items()} == {k: amount(v) for k, v in limits.items()}
    assert limits["nvidia.com/gpu"] == 1


def test_run_folders_are_on_the_claim_that_every_pod_mounts(job):
    claim = load(CLAIM)
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods_of(job):
        assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}]
        assert pod["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
    (args,) = parse_project_commands(job["entrypoint"])
    assert str(args.run_dir).startswith("/shared/")


def test_image_manifest_and_constraints_are_of_one_ray(job):
    dockerfile, version = text_of("kuberay/Dockerfile"), pins()["ray"]
    assert job["rayClusterSpec"]["rayVersion"] == version  # authOptions is refused without it
    assert f"FROM rayproject/ray:{version}-py311-cpu\n" in dockerfile
    assert "pip install --no-cache-dir --require-hashes -r requirements-linux.txt" in dockerfile
    images = {container["image"] for pod in pods_of(job) for container in pod["containers"]}
    assert len(images) == 1
    assert dockerfile.count(images.pop()) == 2  # docker build, docker push


def test_the_image_holds_what_the_manifest_names():
    dockerfile = text_of("kuberay/Dockerfile")
    assert f"WORKDIR {IMAGE_FOLDER}\n" in dockerfile
    copied = [name for line in re.findall(r"COPY --chown=\S+ (.*) \S+", dockerfile) for name in line.split()]
    assert {"requirements-linux.txt", "setup.cfg", "pyproject.toml", "tvt_ray", "configs", "search.py"} <= set(copied)
    assert all((REPO / name).exists() for name in copied)
    named = re.findall(rf"{IMAGE_FOLDER}/([\w./-]+)", text_of(MANIFEST))
    assert named
    for name in named:
        assert (REPO / name).is_file()
        assert name.split("/")[0] in copied
