"""The tables of docs/proxies.md as Markdown: how well every score ranks architectures of known accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from tvt_ray.judging.agreement import agreement, gain_at_budgets, kendall_tau, partial_correlation
from tvt_ray.judging.truth import Scored
from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.scores import score_names

NAMES = tuple(score_names())
BANDS = {"autoformer": (4_000_000, 9_000_000), "pit": (4_000_000, 22_000_000)}  # the published search's budgets
BUDGET_QUANTILES = (0.25, 0.5, 0.75, 1.0)

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
    """What `attention_similarity` and the other teacher-aware readings add to what needs no teacher."""
    scores, accuracy = {name: values.mean(0) for name, values in one.scores.items()}, one.truth.accuracy(column)
    found = []
    for name in ("attention_similarity", "diswot"):
        for controls in (("l2_norm",), ("l2_norm", "params"), ("rank_sum", "params")):
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
    """Kendall's tau of the default score with the teacher-aware reading added at a weight, both z-scored."""
    titles = [own[1].removesuffix("_kd_acc") + " (matching teacher)", "published, mean"]
    lines = [f"| weight of `attention_similarity` | {' | '.join(titles)} |", "|---|---|---|"]
    for weight in (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0):
        means = [np.mean([_tau_with(weight, *pair) for pair in pairs]) for pairs in ([own], published) if pairs]
        lines.append(f"| {weight:g} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines)


def _tau_with(weight: float, one: Scored, column: str) -> float:
    score, similarity = (one.scores[name].mean(0) for name in ("capacity", "attention_similarity"))
    fused = stats.zscore(score) + weight * stats.zscore(similarity)
    return kendall_tau(fused, one.truth.accuracy(column)) or 0.0


FUSIONS: tuple[dict[str, float], ...] = (
    {"params": 1},
    {"rank_sum": 1},
    {"log_norm": 1},
    {"l2_norm": 1},
    {"params": 1, "rank_sum": 1},
    {"params": 1, "log_norm": 1},
    {"rank_sum": 1, "log_norm": 1},
    {"params": 1, "rank_sum": 1, "l2_norm": 1},
    {"params": 1, "rank_sum": 1, "log_norm": 1},
    {"params": 2, "rank_sum": 1, "log_norm": 1},
    {"params": 1, "rank_sum": 2, "log_norm": 1},
    {"params": 2, "rank_sum": 2, "log_norm": 1},
    {"params": 3, "rank_sum": 3, "log_norm": 1},
)


def fusion_table(own: tuple[Scored, str], published: Columns) -> str:
    """Capability as a weighted sum of z-scores over the table (a search takes them over its calibration sample)."""
    parts = ("params", "rank_sum", "log_norm", "l2_norm")
    lines = ["| log parameters | `rank_sum` | `log_norm` | `l2_norm` | published, mean | own |", "|---" * 6 + "|"]
    for weights in FUSIONS:
        cells = [f"{weights[name]:g}" if name in weights else "" for name in parts]
        means = [np.mean([_fused_tau(weights, *pair) for pair in pairs]) for pairs in (published, [own]) if pairs]
        lines.append(f"| {' | '.join([*cells, *(f'{mean:.3f}' for mean in means)])} |")
    return "\n".join(lines)


def _fused_tau(weights: Mapping[str, float], one: Scored, column: str) -> float:
    readings = {name: one.scores[name].mean(0) for name in weights}
    scaled = {name: np.log(values) if name == "params" else values for name, values in readings.items()}
    fused = sum(weight * stats.zscore(scaled[name]) for name, weight in weights.items())
    return kendall_tau(np.asarray(fused), one.truth.accuracy(column)) or 0.0


def cost_table(measured: Mapping[str, Mapping[str, float]]) -> str:
    spaces = list(measured)
    head = " | ".join(f"{space}: forward passes | {space}: against `tvt`" for space in spaces)
    lines = [f"| proxy | {head} |", "|---" * (1 + 2 * len(spaces)) + "|"]
    for name in sorted(PROXIES, key=lambda name: measured[spaces[0]][f"{name}/forward"]):
        cells = [f"{measured[space][f'{name}/{against}']:.2f}" for space in spaces for against in ("forward", "tvt")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)
