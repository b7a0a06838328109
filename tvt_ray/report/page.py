"""A run as one HTML file that needs no other. Every text is escaped: rows, classes and paths may be a stranger's."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tvt_ray.refining.learned import Learned
from tvt_ray.report.figures import plot_search
from tvt_ray.report.html import drawn, page
from tvt_ray.report.measured import plot_measured
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.ranking import Entry, Ranking
from tvt_ray.scoring.rows import Row, arch_of
from tvt_ray.storage.locations import Location, write_atomically
from tvt_ray.vits import Space
from tvt_ray.vits.budget import format_count

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
    prediction = learned.prediction if learned else None
    content = page(
        "run",
        title="Training-free ViT search",
        rows=rows,
        num_failed=sum(row.status != "ok" for row in rows),
        ranking=ranking,
        config=config,
        figure=figure,
        measured=drawn(lambda: plot_measured(learned)) if learned and learned.measurements else None,
        lessons=[lesson.sentence() for lesson in prediction.lessons] if prediction else (),
        **_table(ranking.top(NUM_LISTED), config.space),
    )
    write_atomically(path, content)


def _table(best: Sequence[Entry], space: Space) -> dict[str, Sequence[Sequence[str]]]:
    names = sorted(best[0].row.readings)
    lines = []
    for number, (row, score) in enumerate(((each.row, each.score) for each in best), 1):
        name = Markup("{}<br><code>{}</code>").format(space.describe(arch_of(row, space)), row.arch_id)
        counts = [f"{score:.4f}", format_count(row.params), format_count(row.flops)]
        readings = [f"{row.readings[name]:.5g}" if name in row.readings else "" for name in names]
        lines.append([str(number), name, *counts, *readings])
    return {"columns": ("#", "architecture", "score", "parameters", "FLOPs", *names), "lines": lines}
