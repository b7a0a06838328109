"""ZiCo (Li et al. 2023, https://arxiv.org/abs/2301.11300)."""

from __future__ import annotations

import math

import torch

from tvt_ray.proxies.passes import cross_entropy, gradients, matrices, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student

NUM_BATCHES = 4


def zico(student: Student, probe: Probe) -> float:
    """`zico`: sum over layers of log sum over weights of mean |gradient| / its standard deviation; higher is better.

    Mean and deviation are over batches: the probe in four parts (the paper's code takes two batches; of two, those
    weights dominate whose gradients happen to agree). One forward and one backward pass in all. Nothing to adapt for
    ViTs. Raises ValueError for a probe of fewer than four images.
    """
    if len(probe.images) < NUM_BATCHES:
        raise ValueError(f"zico needs at least {NUM_BATCHES} probe images")
    weights = matrices(student)
    parts = zip(probe.images.tensor_split(NUM_BATCHES), probe.labels.tensor_split(NUM_BATCHES), strict=True)
    batches = [gradients(cross_entropy(student, images, labels), weights) for images, labels in parts]
    logs = []
    for layer in zip(*batches, strict=True):
        stacked = torch.stack(layer)
        mean, deviation = stacked.abs().mean(0), stacked.std(0, correction=0)
        varied = deviation > 0
        logs.append((mean / deviation)[varied].double().sum().log())  # of no weight that varies: -inf
    return sum(log for log in numbers(logs) if log > -math.inf)
