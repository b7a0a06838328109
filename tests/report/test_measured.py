"""What refine measured, as figures and on the page."""

from tests.refining.test_learned import SPACE, learned, trained
from tvt_ray.report.measured import plot_measured
from tvt_ray.report.page import write_report
from tvt_ray.runs.config import load_config


def known():
    """Fifteen students that were trained, one of them twice."""
    measurements = [m for number in range(0, 30, 2) for m in trained(number, 3, 40 + number)]
    return learned([*measurements, *trained(0, 1, 45, seed=1)])


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
    write_report(tmp_path / "report.html", rows, found.prior, config)
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 2
