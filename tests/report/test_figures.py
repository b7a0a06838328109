"""The figures of a run: the search, and what refine measured."""

from __future__ import annotations

import dataclasses
import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from tests.conftest import make_row
from tests.refining.test_learned import SPACE, learned, trained
from tvt_ray.report.html import figure_png
from tvt_ray.report.page import plot_measured, plot_search, write_report
from tvt_ray.runs.config import load_config
from tvt_ray.scoring.ranking import make_ranking
from tvt_ray.scoring.scores import Calibration


def rank(rows, by="params"):
    return make_ranking(rows, by, Calibration.from_rows(rows))


@pytest.fixture
def rows():
    return [make_row(number, flops=1_000_000 * (12 - number)) for number in range(1, 11)]


def texts(axes):
    return [axes.get_xlabel(), axes.get_ylabel()]


def test_scores_are_drawn_over_flops_with_the_front_and_the_best(rows):
    ranking = rank(rows, "tvt")
    front_axes, _, *_ = plot_search(ranking).axes
    assert texts(front_axes) == ["MFLOPs (multiply-accumulates per image)", "score (tvt)"]
    points = front_axes.collections[0].get_offsets()
    assert sorted(map(tuple, points.tolist())) == sorted((each.row.flops / 1e6, each.score) for each in ranking.scored)
    front, best = front_axes.lines
    assert list(front.get_xdata()) == [each.row.flops / 1e6 for each in ranking.front()]
    assert (list(best.get_xdata()), list(best.get_ydata())) == (
        [ranking.top(1)[0].row.flops / 1e6],
        [ranking.top(1)[0].score],
    )


def test_tvts_readings_are_drawn_where_both_were_read(rows):
    _, pair, *_ = plot_search(rank(rows)).axes
    assert texts(pair) == ["l2_norm (student capability)", "attention_similarity (teacher-aware)"]
    assert len(pair.collections[0].get_offsets()) == 10


@pytest.mark.parametrize("readings", [{"rank_sum": 1.0}, {"l2_norm": 1.0}, {"attention_similarity": 1.0}], ids=str)
def test_without_both_readings_there_is_one_plot(readings, rows):
    lacking = [dataclasses.replace(row, readings=readings) for row in rows]
    assert len(plot_search(rank(lacking)).axes) == 1


def test_one_row_is_enough_for_a_figure(rows):
    assert figure_png(lambda: plot_search(rank(rows[:1]))).startswith(b"\x89PNG")


def test_all_is_drawn_in_the_pages_ink_and_nothing_of_matplotlib_is_changed(rows):
    before, drawn = dict(mpl.rcParams), []

    def draw():
        drawn.append(plot_search(rank(rows)))
        return drawn[-1]

    dark, light = (np.array(Image.open(io.BytesIO(figure_png(draw, ink, "none")))) for ink in ("#ffffff", "#000000"))
    axes = drawn[0].axes[0]
    colours = [axes.xaxis.label.get_color(), axes.get_legend().get_texts()[0].get_color()]
    colours += [axes.xaxis.get_ticklabels()[0].get_color(), axes.spines["left"].get_edgecolor()]
    assert {to_hex(colour) for colour in colours} == {"#ffffff"}
    assert not axes.spines["top"].get_visible()
    assert dark[0, 0, 3] == light[0, 0, 3] == 0  # no background
    assert dict(mpl.rcParams) == before


def known():
    """Fifteen students that were trained, one of them twice."""
    measurements = [m for number in range(0, 30, 2) for m in trained(number, 3, 40 + number)]
    return learned([*measurements, *trained(0, 1, 45, seed=1)])


@pytest.mark.slow
def test_every_training_is_a_curve_and_every_row_a_point():
    left, right = plot_measured(known()).axes
    curves = [line for line in left.lines if line.get_marker() == "o"]
    assert len(curves) == 16
    assert sorted(curves[0].get_ydata().tolist()) == curves[0].get_ydata().tolist()
    assert len(right.collections[0].get_offsets()) == len(known().entries)
    (best,) = (line for line in right.lines if line.get_marker() == "*")
    assert best.get_ydata() == known().ranking.scored[0].score


def test_with_few_there_are_curves_alone():
    (axis,) = plot_measured(learned(trained(0, 3, 50))).axes
    assert [line.get_ydata().tolist() for line in axis.lines if line.get_marker() == "o"] == [[51, 52, 53]]


def test_the_page_shows_them_where_they_rank(tmp_path):
    found, config = known(), load_config(None, [{"space": SPACE.model_dump(mode="json")}])
    rows = [each.row for each in found.entries]
    write_report(tmp_path / "report.html", rows, found.ranking, config, found)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # two figures, light and dark
    assert all(lesson.sentence() in page for lesson in found.prediction.lessons)
    assert f"All this holds after {found.prediction.epochs} of {config.distill.epochs} epochs" in page
    write_report(tmp_path / "report.html", rows, found.prior, config)
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 2
