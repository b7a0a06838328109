"""A run as one HTML file that needs no other. Every text is escaped: rows, classes and paths may be a stranger's."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from tvt_ray.report.figures import figure_png, plot_search
from tvt_ray.report.html import escape
from tvt_ray.report.measured import plot_measured
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.measured import Learned
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
    png = figure_png(plot_search(ranking))
    write_atomically(path.with_suffix(".png"), png)
    page = _PAGE.format(
        items="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _facts(rows, ranking, config).items()),
        image=base64.b64encode(png).decode(),
        measured=_measured(learned) if learned and learned.measurements else "",
        table=_table(ranking.top(NUM_LISTED), config.space),
        config=escape(config.to_yaml()),
    )
    write_atomically(path, page.encode())


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
    png = base64.b64encode(figure_png(plot_measured(learned))).decode()
    lessons = learned.prediction.lessons if learned.prediction else ()
    words = "".join(f"<li>{escape(lesson.sentence())}</li>" for lesson in lessons)
    alt = "validation accuracy by epoch of each student, and predicted accuracy against parameters"
    image = f'<img alt="{alt}" src="data:image/png;base64,{png}">'
    return f"<h2>What short trainings taught</h2>{image}<ul>{words}</ul>"


def _table(best: Sequence[Entry], space: Space) -> str:
    names = sorted(best[0].row.readings)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("#", "architecture", "score", "parameters", "FLOPs", *names))
    lines = []
    for number, (row, score) in enumerate(((each.row, each.score) for each in best), 1):
        name = f"{escape(space.describe(arch_of(row, space)))}<br><code>{escape(row.arch_id)}</code>"
        counts = [f"{score:.4f}", format_count(row.params), format_count(row.flops)]
        readings = [f"{row.readings[name]:.5g}" if name in row.readings else "" for name in names]
        cells = "".join(f"<td>{cell}</td>" for cell in [str(number), name, *counts, *readings])
        lines.append(f"<tr>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>tvt_ray search</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1f2933 }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1.5em }} dt {{ color: #66788a }} dd {{ margin: 0 }}
img {{ width: 100% }} table {{ border-collapse: collapse; width: 100% }} pre {{ background: #f5f7fa; padding: 1em }}
td, th {{ text-align: right; padding: .2em .6em; border-bottom: 1px solid #e4e7eb }}
td:nth-child(2), th:nth-child(2) {{ text-align: left }} code {{ color: #66788a; font-size: .85em }}
</style><h1>Training-free ViT search</h1><dl>{items}</dl>
<img alt="score against FLOPs with the Pareto front" src="data:image/png;base64,{image}">{measured}
<h2>Best architectures, one of each shape</h2>{table}<h2>Config</h2><pre>{config}</pre></html>
"""
