"""Which form of the teacher-aware and of the capability term predicts accuracy: the tables behind the default score.

python benchmarks/terms.py --ground-truth FILE… --dataset parquet:PATH --teacher resnet56 --teacher-weights FILE

Every form is read off the same students, one forward pass each. Per form: Kendall's tau with each *_kd_acc column, the
partial rank correlation once s and the parameter count are known, and how much of its spread over architectures other
weights and other images make. Ends with one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from tvt_ray.bench.rank import Floats, noise_share, partial_correlation, read_ground_truth
from tvt_ray.cli import Parser, add_common, config_of, run
from tvt_ray.distill.teacher import get_teacher
from tvt_ray.models import build_student
from tvt_ray.models.layers import Student
from tvt_ray.pipeline import load_data, make_task
from tvt_ray.progress import Meter
from tvt_ray.proxies import Probe
from tvt_ray.proxies.gradients import matrices
from tvt_ray.proxies.recording import attentions_of, blocks_of, inputs_of
from tvt_ray.proxies.tvt import attention_map
from tvt_ray.search.scorer import ScoringTask
from tvt_ray.space import Arch, as_space

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
    attention = [weight for b in blocks_of(student) for weight in (b.attention.qkv.weight, b.attention.proj.weight)]
    norms, ranks = [float(weight.norm()) for weight in layers], [min(weight.shape) for weight in inner]
    return {
        "sum of norms (s)": sum(norms),
        "sum of log norms": sum(map(math.log, norms)),
        "global norm": math.sqrt(sum(norm**2 for norm in norms)),
        "sum of norms over initial deviation": sum(math.sqrt(weight.numel()) for weight in layers),
        "nuclear norms of attention": sum(float(torch.linalg.matrix_norm(w.detach(), "nuc")) for w in attention),
        "sum of ranks": float(sum(ranks)),
        "sum of squared ranks": float(sum(rank**2 for rank in ranks)),
    }


# Reading and tabulating -----------------------------------------------------------------------------------------------

_task: ScoringTask | None = None


def _share(task: ScoringTask) -> None:
    global _task  # noqa: PLW0603 (how a process of the pool keeps the probe)
    torch.set_num_threads(1)
    _task = task


def _read(arch: Arch) -> dict[str, float]:
    assert _task is not None
    student = build_student(_task.space, arch, _task.num_classes, _task.seed, "cpu")
    cost = _task.space.cost(arch, _task.num_classes)
    sizes = {"parameters": float(cost.params), "FLOPs": float(cost.flops), "depth": float(student.num_blocks)}
    return {**sizes, **capability_forms(student), **teacher_forms(student, _task.probe)}


def read_all(task: ScoringTask, archs: Sequence[Arch], title: str) -> dict[str, Floats]:
    readings = []
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(os.cpu_count(), context, initializer=_share, initargs=(task,)) as pool,
        Meter(title, len(archs), "architectures") as meter,
    ):
        for reading in pool.map(_read, archs):
            readings.append(reading)
            meter.advance(1)
    return {name: np.array([reading[name] for reading in readings]) for name in readings[0]}


def summarise(by_seed: Sequence[Mapping[str, Floats]], accuracies: Mapping[str, Floats]) -> list[dict[str, Any]]:
    known = [by_seed[0]["sum of norms (s)"], by_seed[0]["parameters"]]
    rows = []
    for form in by_seed[0]:
        values = np.array([readings[form] for readings in by_seed])
        mean = values.mean(0)
        partials = {}
        if form not in ("sum of norms (s)", "parameters"):
            partials = {column: partial_correlation(mean, accuracy, known) for column, accuracy in accuracies.items()}
        rows.append(
            {
                "form": form,
                "kendall": {c: float(stats.kendalltau(mean, accuracy)[0]) for c, accuracy in accuracies.items()},
                "partial": partials,
                "noise_share": noise_share(values) if len(by_seed) > 1 else None,
            }
        )
    return rows


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Markdown, in the order of the forms."""
    columns = list(rows[0]["kendall"])
    titles = " | ".join(f"{c.removesuffix('_kd_acc')}: Kendall | partial (95 %)" for c in columns)
    print(f"| form | {titles} | noise |")
    print("|---" * (2 + 2 * len(columns)) + "|")
    for row in rows:
        cells = []
        for column in columns:
            partial = "-"
            if row["partial"].get(column):
                r, low, high = row["partial"][column]
                partial = f"{r:.2f} ({low:.2f} to {high:.2f})"
            cells += [f"{row['kendall'][column]:.3f}", partial]
        noise = "-" if row["noise_share"] is None else f"{100 * row['noise_share']:.0f} %"
        print(f"| {row['form']} | {' | '.join(cells)} | {noise} |")


def terms(args: argparse.Namespace) -> int:
    config = config_of(args)
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    result: dict[str, Any] = {}
    for path in args.ground_truth:
        for truth in read_ground_truth(path, as_space(config.space), data.num_classes):
            by_seed = []
            for seed in range(args.seeds):
                probe = config.probe.model_copy(update={"seed": seed})
                own = config.model_copy(update={"space": truth.space, "seed": seed, "probe": probe})
                archs = [entry.arch for entry in truth.entries]
                by_seed.append(read_all(make_task(own, data, teacher), archs, f"{truth.space.name}, seed {seed}"))
            columns = [column for column in truth.columns if column.endswith("_kd_acc")]
            rows = summarise(by_seed, {column: truth.accuracy(column) for column in columns})
            print(f"\n{path.name}: {len(truth.entries)} architectures, {config.probe.num_images} images\n")
            print_table(rows)
            result[path.stem] = rows
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="terms.py", description="Compares forms of the score's terms.", allow_abbrev=False)
    add_common(parser)
    parser.add_argument("--ground-truth", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--num-images", type=int, metavar="N", help="images in the probe")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="weights and images to average over")
    parser.set_defaults(command=terms)
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
