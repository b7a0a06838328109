"""Measures every proxy against trained accuracies and writes the tables of docs/proxies.md.

python benchmarks/proxies.py --ground-truth autoformer_dev.jsonl pit_dev.jsonl --dataset parquet:PATH \
    --teacher resnet56 --teacher-weights FILE

What was scored before comes from the cache. --own names ground truth made with the very teacher (ground_truth.py), and
--own-config the config it was made with. Ends with one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from tvt_ray import ranking
from tvt_ray.bench.rank import Scored, agreement, gain_at_budgets, kendall_tau, partial_correlation
from tvt_ray.cli import Parser, add_common, config_of, overrides, run
from tvt_ray.config import RunConfig, load_config
from tvt_ray.distill.teacher import get_teacher
from tvt_ray.models import build_student
from tvt_ray.pipeline import load_data, make_task
from tvt_ray.progress import say
from tvt_ray.proxies import PROXIES
from tvt_ray.space import SPACES, as_space
from tvt_ray.storage import write_atomically

NAMES = ("tvt_ray", "tvt", "params", "flops", "depth", *PROXIES)
BANDS = {"autoformer": (4_000_000, 9_000_000), "pit": (4_000_000, 22_000_000)}  # the published search's budgets
BUDGET_QUANTILES = (0.25, 0.5, 0.75, 1.0)
DOC = Path(__file__).parents[1] / "docs" / "proxies.md"
NUM_COST_ARCHS = 3

Columns = Sequence[tuple[Scored, str]]
Values = Mapping[str, Sequence[float]]


def distilled(scored: Sequence[Scored]) -> Columns:
    return [(one, column) for one in scored for column in one.truth.columns if column.endswith("_kd_acc")]


def per_column(columns: Columns, measure: Callable[[Scored, str, str], float]) -> dict[str, list[float]]:
    return {name: [measure(one, column, name) for one, column in columns] for name in NAMES}


def tau(one: Scored, column: str, name: str) -> float:
    return kendall_tau(one.scores[name].mean(0), one.truth.accuracy(column)) or 0.0


def tau_in_band(one: Scored, column: str, name: str) -> float:
    inside = one.truth.within(*BANDS[one.truth.space.name])
    return kendall_tau(one.scores[name].mean(0)[inside], one.truth.accuracy(column)[inside]) or 0.0


def gain(one: Scored, column: str, name: str) -> float:
    params = np.array([entry.params for entry in one.truth.entries])
    return gain_at_budgets(one.scores[name].mean(0), one.truth.accuracy(column), params, BUDGET_QUANTILES)


def table(columns: Columns, values: Values, digits: int = 3) -> str:
    """Markdown, best mean first."""
    titles = [f"{one.truth.space.name} {column.removesuffix('_kd_acc')}" for one, column in columns]
    lines = [f"| proxy | {' | '.join(titles)} | mean |", "|---" * (len(titles) + 2) + "|"]
    for name, row in sorted(values.items(), key=lambda pair: -float(np.mean(pair[1]))):
        cells = [f"{value:.{digits}f}" for value in (*row, float(np.mean(row)))]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def own_table(one: Scored, column: str) -> str:
    """One column in full: Kendall's tau with its interval, and what following the proxy gives."""
    lines = ["| proxy | Kendall | 95 % | Spearman | regret of the first | of the best of 5 | gain |", "|---" * 7 + "|"]
    entries = [(name, agreement(one.scores[name].mean(0), one.truth.accuracy(column))) for name in NAMES]
    for name, e in sorted(entries, key=lambda pair: -(pair[1].kendall or 0)):
        low, high = e.kendall_ci95 or (0.0, 0.0)
        gains = gain(one, column, name)
        lines.append(
            f"| `{name}` | {e.kendall or 0:.3f} | {low:.2f} to {high:.2f} | {e.spearman or 0:.3f} "
            f"| {e.top1_regret:.2f} | {e.top5_regret:.2f} | {gains:.2f} |"
        )
    return "\n".join(lines)


def partials(one: Scored, column: str) -> list[dict[str, Any]]:
    """What `t` and the other teacher-aware readings add to what needs no teacher."""
    scores, accuracy = {name: values.mean(0) for name, values in one.scores.items()}, one.truth.accuracy(column)
    found = []
    for name in ("t", "diswot"):
        for controls in (("s",), ("s", "params"), ("r", "params")):
            partial = partial_correlation(scores[name], accuracy, [scores[control] for control in controls])
            if partial:
                found.append({"proxy": name, "given": list(controls), "r": partial[0], "ci95": partial[1:]})
    return found


def partial_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| reading | given | partial correlation | 95 % |", "|---|---|---|---|"]
    for row in rows:
        low, high = row["ci95"]
        given = " and ".join(f"`{name}`" for name in row["given"])
        lines.append(f"| `{row['proxy']}` | {given} | {row['r']:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def weight_table(own: tuple[Scored, str], published: Columns) -> str:
    """Kendall's tau of the default score with the teacher-aware reading `t` added at a weight, both z-scored."""
    titles = [own[1].removesuffix("_kd_acc") + " (matching teacher)", "published, mean"]
    lines = [f"| weight of `t` | {' | '.join(titles)} |", "|---|---|---|"]
    for weight in (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0):
        means = [np.mean([_tau_with(weight, *pair) for pair in pairs]) for pairs in ([own], published) if pairs]
        lines.append(f"| {weight:g} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def _tau_with(weight: float, one: Scored, column: str) -> float:
    score, t = (values.mean(0) for values in (one.scores["tvt_ray"], one.scores["t"]))
    fused = (score - score.mean()) / score.std() + weight * (t - t.mean()) / t.std()
    return kendall_tau(fused, one.truth.accuracy(column)) or 0.0


FUSIONS: tuple[dict[str, float], ...] = (
    {"params": 1},
    {"r": 1},
    {"log_norm": 1},
    {"s": 1},
    {"params": 1, "r": 1},
    {"params": 1, "log_norm": 1},
    {"r": 1, "log_norm": 1},
    {"params": 1, "r": 1, "s": 1},
    {"params": 1, "r": 1, "log_norm": 1},
    {"params": 2, "r": 1, "log_norm": 1},
    {"params": 1, "r": 2, "log_norm": 1},
    {"params": 2, "r": 2, "log_norm": 1},
    {"params": 3, "r": 3, "log_norm": 1},
)


def fusion_table(own: tuple[Scored, str], published: Columns) -> str:
    """Capability as a weighted sum of z-scores over the table (a search takes them over its calibration sample)."""
    lines = ["| log parameters | `r` | `log_norm` | `s` | published, mean | own |", "|---" * 6 + "|"]
    for weights in FUSIONS:
        cells = [f"{weights[name]:g}" if name in weights else "" for name in ("params", "r", "log_norm", "s")]
        means = [np.mean([_fused_tau(weights, *pair) for pair in pairs]) for pairs in (published, [own]) if pairs]
        lines.append(f"| {' | '.join([*cells, *(f'{mean:.3f}' for mean in means)])} |")
    return "\n".join(lines)


def _fused_tau(weights: Mapping[str, float], one: Scored, column: str) -> float:
    readings = {name: one.scores[name].mean(0) for name in weights}
    scaled = {name: np.log(values) if name == "params" else values for name, values in readings.items()}
    fused = sum(weight * stats.zscore(scaled[name]) for name, weight in weights.items())
    return kendall_tau(np.asarray(fused), one.truth.accuracy(column)) or 0.0


def costs(config: RunConfig) -> dict[str, dict[str, float]]:
    """Seconds of each proxy over those of one forward pass, and over those of scoring by tvt; one thread, by space."""
    torch.set_num_threads(1)
    data = load_data(config)
    teacher, _ = get_teacher(config.teacher, config.teacher_training, data)
    result: dict[str, dict[str, float]] = {}
    for name, settings in SPACES.items():
        space, rng = as_space(settings()), random.Random(0)
        task = make_task(config.model_copy(update={"space": settings()}), data, teacher)
        seconds: dict[str, float] = {}
        for _ in range(NUM_COST_ARCHS):
            arch = space.sample(rng)
            for key, measured in _time_proxies(task, arch).items():
                seconds[key] = seconds.get(key, 0.0) + measured
        tvt = seconds["build"] + seconds["t"] + seconds["s"]
        result[name] = {f"{key}/forward": value / seconds["forward"] for key, value in seconds.items()}
        result[name] |= {f"{key}/tvt": (seconds["build"] + seconds[key]) / tvt for key in PROXIES}
        say(f"cost: {name} measured on {NUM_COST_ARCHS} architectures")
    return result


def _time_proxies(task: Any, arch: Any) -> dict[str, float]:
    start = time.perf_counter()
    student = build_student(task.space, arch, task.num_classes, task.seed)
    seconds = {"build": time.perf_counter() - start}
    with torch.inference_mode():
        student(task.probe.images)  # warms up
        start = time.perf_counter()
        student(task.probe.images)
        seconds["forward"] = time.perf_counter() - start
    for name, proxy in PROXIES.items():
        start = time.perf_counter()
        proxy(student, task.probe)
        seconds[name] = time.perf_counter() - start
    return seconds


def cost_table(measured: Mapping[str, Mapping[str, float]]) -> str:
    spaces = list(measured)
    head = " | ".join(f"{space}: forward passes | {space}: against `tvt`" for space in spaces)
    lines = [f"| proxy | {head} |", "|---" * (1 + 2 * len(spaces)) + "|"]
    for name in sorted(PROXIES, key=lambda name: measured[spaces[0]][f"{name}/forward"]):
        cells = [f"{measured[space][f'{name}/{against}']:.2f}" for space in spaces for against in ("forward", "tvt")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def replace_tables(tables: Mapping[str, str]) -> None:
    """Between `<!-- NAME -->` and `<!-- /NAME -->` in docs/proxies.md."""
    text = DOC.read_text()
    for name, content in tables.items():
        before, found, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        if not found or not closing:
            raise SystemExit(f"{DOC} has no place for the table {name!r}")
        text = f"{before}{found}{content}\n{closing}{after}"
    write_atomically(DOC, text.encode())


def proxies(args: argparse.Namespace) -> int:
    config, tables, result = config_of(args), dict[str, str](), dict[str, Any]()
    columns: Columns = []
    if args.ground_truth:
        request = ranking.RankRequest(tuple(args.ground_truth), NAMES)
        columns = distilled(ranking.score_ground_truth(config, request, args.ray_address))
        for key, measure, digits in (("kendall", tau, 3), ("band", tau_in_band, 3), ("gain", gain, 2)):
            values = per_column(columns, measure)
            tables[key] = table(columns, values, digits)
            result[key] = {name: float(np.mean(row)) for name, row in values.items()}
    if args.own:
        own_config = load_config(args.own_config, overrides(args))
        request = ranking.RankRequest((args.own,), NAMES, num_seeds=args.seeds)
        (one,) = ranking.score_ground_truth(own_config, request, args.ray_address)
        (column,) = one.truth.columns
        tables["own"], rows = own_table(one, column), partials(one, column)
        tables["partial"], result["partial"] = partial_table(rows), rows
        tables["weight"] = weight_table((one, column), columns)
        tables["fusion"] = fusion_table((one, column), columns)
        result["own"] = {name: tau(one, column, name) for name in NAMES}
    if args.cost:
        result["cost"] = costs(config)
        tables["cost"] = cost_table(result["cost"])
    replace_tables(tables)
    print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="proxies.py", description="Writes the tables of docs/proxies.md.", allow_abbrev=False)
    add_common(parser)
    parser.add_argument("--ground-truth", type=Path, nargs="+", metavar="FILE", help="published tables")
    parser.add_argument("--num-images", type=int, metavar="N", help="images in the probe, of --own too")
    parser.add_argument("--own", type=Path, metavar="FILE", help="ground truth made with the teacher")
    parser.add_argument(
        "--own-config", type=Path, metavar="FILE", default=Path(__file__).with_name("ground_truth.yaml")
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="weights and images, for --own")
    parser.add_argument("--cost", action="store_true", help="also time every proxy")
    parser.add_argument("--ray-address", metavar="ADDRESS")
    parser.set_defaults(command=proxies)
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
