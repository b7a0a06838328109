"""How undecided attention is: the entropy of attention probabilities (a ViT statistic of many papers; here as a proxy).

Serianni and Kalita 2023 (https://arxiv.org/abs/2306.04841) score transformers by the opposite, attention confidence.
"""

from __future__ import annotations

import torch

from tvt_ray.proxies.passes import blocks_of, inputs_of, numbers
from tvt_ray.proxies.probe import Probe
from tvt_ray.vits.student import Student


@torch.no_grad()
def attention_entropy(student: Student, probe: Probe) -> float:
    """`attention_entropy`: minus the mean entropy, in nats, of attention probabilities; higher is better, at most 0.

    Mean over blocks, heads, images and queries. One forward pass and the attention products again; no labels.
    """
    attentions = [block.attn for block in blocks_of(student)]
    with inputs_of(attentions) as tokens:
        student(probe.images)
    pairs = zip(attentions, tokens, strict=True)
    means = [torch.special.entr(attention.probabilities(inputs)).sum(-1).mean() for attention, inputs in pairs]
    return -sum(numbers(means)) / len(attentions)
