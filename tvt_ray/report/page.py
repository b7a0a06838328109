"""A run as one HTML file that needs no other. Every text is escaped: rows, classes and paths may be a stranger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvt_ray.refining.learned import Learned
from tvt_ray.report.figures import plot_search
from tvt_ray.report.html import Html, diagram, drawn, escape, facts_list, page, table
from tvt_ray.report.measured import plot_measured
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.ranking import Entry, Ranking
from tvt_ray.scoring.rows import Row, arch_of
from tvt_ray.spaces.base import Space
from tvt_ray.spaces.budget import format_count
from tvt_ray.storage.locations import Location, write_atomically

NUM_LISTED = 20


def write_report(
    path: Location, rows: Sequence[Row], ranking: Ranking, config: RunConfig, learned: Learned | None = None
) -> None:
    """Writes report.html, and the figure beside it as report.png. Does nothing when no row has a score.

    `learned`: what trainings said, where they rank.
    """
    if not ranking.scored:
        return
    figure = drawn(lambda: plot_search(ranking))
    write_atomically(path.with_suffix(".png"), figure.light)
    parts = [
        facts_list(_facts(rows, ranking, config)),
        diagram(figure, "score against FLOPs with the Pareto front", "wide"),
        _measured(learned) if learned and learned.measurements else "",
        "<h2>Best architectures, one of each shape</h2>",
        _table(ranking.top(NUM_LISTED), config.space),
        f"<h2>Config</h2><pre>{escape(config.to_yaml())}</pre>",
    ]
    write_atomically(path, page("Training-free ViT search", "".join(parts)))


def _facts(rows: Sequence[Row], ranking: Ranking, config: RunConfig) -> Mapping[str, str]:
    failed = sum(row.status != "ok" for row in rows)
    return {
        "dataset": config.data.name,
        "teacher": config.teacher.name,
        "space": f"{config.space.name}, {config.space.image_size} pixels, {config.space.size():,} architectures",
        "budget": str(config.budget),
        "searcher": ", ".join(sorted({row.searcher for row in rows})),
        "scored": f"{len(ranking.scored):,}, of {ranking.num_shapes:,} different shapes",
        **({"failed": f"{failed:,}"} if failed else {}),
        "score": ranking.by,
        "seed": str(config.seed),
    }


def _measured(learned: Learned) -> str:
    """Curves, predictions, and what was learned, in words."""
    lessons = learned.prediction.lessons if learned.prediction else ()
    words = "".join(f"<li>{escape(lesson.sentence())}</li>" for lesson in lessons)
    said = "validation accuracy by epoch of each student, and predicted accuracy against parameters"
    image = diagram(drawn(lambda: plot_measured(learned)), said, "wide")
    return f"<h2>What short trainings taught</h2>{image}<ul>{words}</ul>"


def _table(best: Sequence[Entry], space: Space) -> str:
    names = sorted(best[0].row.readings)
    lines = []
    for number, (row, score) in enumerate(((each.row, each.score) for each in best), 1):
        name = Html(f"{escape(space.describe(arch_of(row, space)))}<br><code>{escape(row.arch_id)}</code>")
        counts = [f"{score:.4f}", format_count(row.params), format_count(row.flops)]
        readings = [f"{row.readings[name]:.5g}" if name in row.readings else "" for name in names]
        lines.append([str(number), name, *counts, *readings])
    return table(("#", "architecture", "score", "parameters", "FLOPs", *names), lines, "architectures")
