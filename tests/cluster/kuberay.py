"""The fields of a RayJob that kuberay/rayjob.yaml uses, as Ray's "KubeRay CRD API reference" (KubeRay 1.7) has them,
and those of Kubernetes around them. A field that is not written down here is an error, as a misspelt one is."""

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Metadata(Strict):
    name: Name


def amount(quantity: str | int) -> Decimal:
    """A Kubernetes quantity as a number. Raises ValueError for what is none."""
    match = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity of a unit that is known here")
    return Decimal(match[1]) * {"": 1, "m": Decimal("0.001"), "Mi": 2**20, "Gi": 2**30}[match[2]]


class Resources(Strict):
    requests: dict[Literal["cpu", "memory", "nvidia.com/gpu"], str | int]
    limits: dict[Literal["cpu", "memory", "nvidia.com/gpu"], str | int]

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> "Resources":
        if self.requests.keys() != self.limits.keys():
            raise ValueError("each resource has a request and a limit")
        over = [name for name, wanted in self.requests.items() if amount(self.limits[name]) < amount(wanted)]
        if over:
            raise ValueError(f"requests exceed limits: {over}")
        if self.requests.get("nvidia.com/gpu") != self.limits.get("nvidia.com/gpu"):
            raise ValueError("a GPU cannot be overcommitted")
        return self


class VolumeMount(Strict):
    name: str
    mount_path: str


class Container(Strict):
    name: str
    image: str
    resources: Resources
    volume_mounts: list[VolumeMount]


class ClaimReference(Strict):
    claim_name: str


class Volume(Strict):
    name: str
    persistent_volume_claim: ClaimReference


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSecurityContext(Strict):
    fs_group: int


class PodSpec(Strict):
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume]
    security_context: PodSecurityContext
    tolerations: list[Toleration] = []

    @model_validator(mode="after")
    def _mounts_are_of_volumes(self) -> "PodSpec":
        mounted = {mount.name for container in self.containers for mount in container.volume_mounts}
        if mounted != {volume.name for volume in self.volumes}:
            raise ValueError(f"mounted are {mounted}")
        return self


class PodTemplate(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    ray_start_params: dict[str, str]
    template: PodTemplate


class WorkerGroup(Strict):
    group_name: str
    replicas: NonNegativeInt
    min_replicas: NonNegativeInt
    max_replicas: PositiveInt
    ray_start_params: dict[str, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _replicas_in_range(self) -> "WorkerGroup":
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError("replicas are outside of their range")
        return self


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]


class AutoscalerOptions(Strict):
    idle_timeout_seconds: PositiveInt


class RayClusterSpec(Strict):
    ray_version: str  # authOptions is refused without it
    auth_options: AuthOptions
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: Annotated[list[WorkerGroup], Field(min_length=1)]

    @property
    def groups(self) -> list[HeadGroup | WorkerGroup]:
        return [self.head_group_spec, *self.worker_group_specs]


class RayJobSpec(Strict):
    entrypoint: str
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    backoff_limit: NonNegativeInt
    active_deadline_seconds: PositiveInt
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: NonNegativeInt
    ray_cluster_spec: RayClusterSpec

    @model_validator(mode="after")
    def _time_to_live_is_of_a_shutdown(self) -> "RayJobSpec":
        if self.ttl_seconds_after_finished and not self.shutdown_after_job_finishes:
            raise ValueError("ttlSecondsAfterFinished needs shutdownAfterJobFinishes")
        return self


class RayJob(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class StorageRequest(Strict):
    requests: dict[Literal["storage"], str]


class ClaimSpec(Strict):
    access_modes: tuple[Literal["ReadWriteMany"]]
    storage_class_name: str
    resources: StorageRequest


class PersistentVolumeClaim(Strict):
    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec
