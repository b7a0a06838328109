"""What a run takes of a cluster. None of it changes what comes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tvt_ray.strict import Strict


class ClusterSettings(Strict):
    """How work is packed onto processors and GPUs, how much of it at a time, and how long machines are waited for."""

    scoring_workers: PositiveInt | None = None  # scoring workers at most; None: as many as the cluster holds
    # architectures that a scoring worker is given at a time; None: about four seconds' worth
    archs_per_trial: PositiveInt | None = None
    # what a Tune trial of a search is: a worker, which is given batch after batch; or an architecture, at Tune's price
    trial: Literal["worker", "architecture"] = "worker"
    # GPUs of each scoring worker; None: 0.25 where there is a GPU, else 0; auto: as its memory allows
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] | None = None
    min_gpus: NonNegativeInt = 0  # GPUs that are asked of the cluster and waited for before anything begins
    gpu_timeout_s: float = Field(1800, gt=0)  # seconds that those are waited for
    training_workers: PositiveInt = 1  # Ray Train workers of each training
    # CPUs of each of those; None: the cluster's cores, shared evenly
    cpus_per_training_worker: PositiveInt | None = None
    # GPUs of each of those; None: 1 where there are GPUs, else 0
    gpus_per_training_worker: float | None = Field(None, ge=0)
    # share of a GPU for each cohort of refine; None: a half where there are GPUs
    gpus_per_cohort: float | None = Field(None, gt=0, le=1)
    # processes of each training worker that load and augment; None: as measured there
    loader_workers: NonNegativeInt | None = None
    max_failures: NonNegativeInt = 3  # restarts of a training that lost a worker

    @model_validator(mode="after")
    def _one_each(self) -> ClusterSettings:
        if self.trial == "architecture" and self.archs_per_trial not in (None, 1):
            raise ValueError("archs_per_trial is of trials that are workers: with trial architecture each has one")
        return self

    @field_validator("gpus_per_trial")
    @classmethod
    def _fraction_or_whole(cls, share: float | str | None) -> float | str | None:
        if isinstance(share, float) and share > 1 and share % 1:
            raise ValueError(f"gpus_per_trial is a fraction of one GPU or a whole number; got {share}")
        return share
