"""A student and its rivals as one HTML file."""

from __future__ import annotations

from matplotlib.figure import Figure

from tvt_ray.quality.comparison import Comparison, Rival
from tvt_ray.report.html import BLUE, GREY, RED, drawn, page
from tvt_ray.vits.budget import format_count

COLUMNS = ("", "params", "test %", "95 %", "behind by", "95 %", "architecture")


def comparison_page(found: Comparison) -> bytes:
    """The page: verdict, figure, and a line for each rival."""
    figure = drawn(lambda: plot_comparison(found))
    return page("comparison", found=found, figure=figure, columns=COLUMNS, lines=map(rival_cells, found.rivals))


def rival_cells(each: Rival, name: str | None = None) -> list[str]:
    """A line under COLUMNS. `name`: a shorter one than the title."""
    low, high = each.accuracy.ci95
    accuracy, ahead = [f"{each.accuracy.value:.2f}", f"{low:.1f} to {high:.1f}"], ["", ""]
    if each.ahead is not None:
        low, high = each.ahead.ci95
        ahead = [f"{each.ahead.value:+.1f}", f"{low:+.1f} to {high:+.1f}"]
    return [name or each.title, format_count(each.params), *accuracy, *ahead, each.arch_id]


def plot_comparison(found: Comparison) -> Figure:
    """Test accuracy: dots for means with 95 % intervals, small ones for seeds, lines for teacher and majority."""
    rivals = found.rivals[::-1]
    figure = Figure(figsize=(7, 1.3 + 0.45 * len(rivals)))
    axes = figure.subplots()
    for height, each in enumerate(rivals):
        colour = BLUE if each.ahead is None else GREY
        axes.plot(each.test_accs, [height] * len(each.test_accs), "o", ms=3, color=colour, alpha=0.6)
        mean, (low, high) = each.accuracy.value, each.accuracy.ci95
        reach = [[mean - low], [high - mean]]
        axes.errorbar(mean, height, xerr=reach, fmt="o", ms=8, color=colour, capsize=3, lw=1.5)
    for value, name, style in ((found.teacher_acc, "teacher", "--"), (found.majority, "majority class", ":")):
        axes.axvline(value, ls=style, lw=1.2, color=RED)
        axes.annotate(name, (value, 1.01), xycoords=("data", "axes fraction"), ha="center", va="bottom", size="small")
    axes.set_yticks(range(len(rivals)), [each.title for each in rivals])
    axes.set_ylim(-0.6, len(rivals) - 0.4)
    axes.set_xlabel("test accuracy (%)")
    return figure
