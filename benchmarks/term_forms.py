"""Forms of the teacher-aware and of the capability term, read off one student."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.proxies.gradients import matrices
from tvt_ray.proxies.probe import Probe
from tvt_ray.proxies.recording import attentions_of, blocks_of, inputs_of
from tvt_ray.proxies.tvt import attention_map
from tvt_ray.students.layers import Student

# Teacher-aware forms ------------------------------------------------------------------------------------------------


def _sizes(ours: Tensor, theirs: Tensor) -> tuple[int, int]:
    height, width = (max(a, b) for a, b in zip(ours.shape[-2:], theirs.shape[-2:], strict=True))
    return height, width


def energy_difference(ours: Tensor, theirs: Tensor) -> float:
    """The published comparison: minus the mean squared difference of attention maps."""
    size = _sizes(ours, theirs)
    return -float((attention_map(ours, size) - attention_map(theirs, size)).square().mean())


def energy_correlation(ours: Tensor, theirs: Tensor) -> float:
    """Attention maps less their mean, so that two flat maps are not alike by being flat."""
    size = _sizes(ours, theirs)
    first, second = (F.normalize(a - a.mean(1, keepdim=True)) for a in (attention_map(f, size) for f in (ours, theirs)))
    return float((first * second).sum(1).mean())


def token_relations(ours: Tensor, theirs: Tensor) -> float:
    """Which positions of an image are alike: cosine of centred Gram matrices over positions, at the teacher's size."""
    return float((_position_gram(ours, theirs.shape[-2:]) * _position_gram(theirs, theirs.shape[-2:])).sum(1).mean())


def _position_gram(features: Tensor, size: Sequence[int]) -> Tensor:
    if max(size) > 8:
        size = (8, 8)  # the coarsest stage's; finer ones would need Gram matrices of a thousand positions
    if features.shape[-2:] != tuple(size):
        features = F.interpolate(features, tuple(size), mode="bilinear", align_corners=False)
    tokens = features.flatten(2).mT
    tokens = tokens - tokens.mean(1, keepdim=True)
    return F.normalize((tokens @ tokens.mT).flatten(1))


def image_relations(ours: Tensor, theirs: Tensor) -> float:
    """Which images are alike: linear CKA (Kornblith et al. 2019) of pooled features."""
    first, second = (rows - rows.mean(0) for rows in (ours.mean((2, 3)), theirs.mean((2, 3))))
    a, b = first @ first.mT, second @ second.mT
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-20))


PUBLISHED = "sum of norms (l2_norm)"  # the published capability term

COMPARISONS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "energy": energy_difference,
    "correlation": energy_correlation,
    "tokens": token_relations,
    "images": image_relations,
}


def placements(num_blocks: int) -> dict[str, list[tuple[int, int]]]:
    """Which blocks are compared with which of the teacher's three stages: (block, stage) pairs to average over."""
    blocks = range(num_blocks)
    return {
        "last": [(num_blocks - 1, 2)],
        "every block, stage 3": [(block, 2) for block in blocks],
        "every block, stage 2": [(block, 1) for block in blocks],
        "every block, matched depth": [(block, min(2, 3 * block // num_blocks)) for block in blocks],
        "guided blocks": [(0, 0), (num_blocks // 2, 1), (num_blocks - 1, 2)],
    }


def teacher_forms(student: Student, probe: Probe) -> dict[str, float]:
    attentions = attentions_of(student)
    with torch.no_grad(), inputs_of(attentions) as tokens:
        maps = student.feature_maps(probe.images, range(student.num_blocks))
        received = {
            i: received_attention(a.probabilities(x)) for i, (a, x) in enumerate(zip(attentions, tokens, strict=True))
        }
    kinds = {name: (maps, compare) for name, compare in COMPARISONS.items()}
    kinds |= {f"attention received, {name}": (received, COMPARISONS[name]) for name in ("energy", "correlation")}
    forms: dict[str, float] = {}
    for name, (ours, compare) in kinds.items():
        places = placements(student.num_blocks)
        wanted = {pair for pairs in places.values() for pair in pairs}
        known = {(block, stage): compare(ours[block], probe.teacher_maps[stage]) for block, stage in wanted}
        forms |= {
            f"{name}: {place}": float(np.mean([known[pair] for pair in pairs])) for place, pairs in places.items()
        }
    return forms


def received_attention(probabilities: Tensor) -> Tensor:
    """(B, N, T, T) -> (B, 1, H, W) whose energy is what each patch receives from all tokens, mean over heads."""
    patches = probabilities.mean(1).mean(1)[:, 1:]
    side = math.isqrt(patches.shape[1])
    return patches.sqrt().unflatten(1, (1, side, side))


# Capability forms -----------------------------------------------------------------------------------------------------


def capability_forms(student: Student) -> dict[str, float]:
    layers = [weight.detach() for weight in matrices(student)]
    inner = [m.weight.detach() for b in blocks_of(student) for m in b.modules() if isinstance(m, nn.Linear)]
    attention = [weight for b in blocks_of(student) for weight in (b.attn.qkv.weight, b.attn.proj.weight)]
    norms, ranks = [float(weight.norm()) for weight in layers], [min(weight.shape) for weight in inner]
    return {
        PUBLISHED: sum(norms),
        "sum of log norms": sum(map(math.log, norms)),
        "global norm": math.sqrt(sum(norm**2 for norm in norms)),
        "sum of norms over initial deviation": sum(math.sqrt(weight.numel()) for weight in layers),
        "nuclear norms of attention": sum(float(torch.linalg.matrix_norm(w.detach(), "nuc")) for w in attention),
        "sum of ranks": float(sum(ranks)),
        "sum of squared ranks": float(sum(rank**2 for rank in ranks)),
    }
