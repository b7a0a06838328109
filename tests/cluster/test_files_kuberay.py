"""kuberay/, without a cluster: fields that KubeRay documents, values that fit each other, and what the image holds."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from tests.cluster.files import IMAGE_FOLDER, MANIFEST, load, parse_project_commands, pins, text_of
from tests.cluster.kuberay import PersistentVolumeClaim, RayJob
from tests.conftest import REPO


@pytest.fixture
def manifest() -> dict[str, Any]:
    return load(MANIFEST)


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
