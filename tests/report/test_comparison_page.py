"""A student and its rivals as a page."""

import dataclasses
import re

import numpy as np
import pytest

from tvt_ray.quality.comparison import Comparison, rival, verdict
from tvt_ray.report.comparison_page import comparison_page, plot_comparison, rival_cells


def hits(*shares):
    return np.stack([np.arange(100) < share for share in shares])


@pytest.fixture
def found():
    student = hits(80, 82)
    rivals = (
        rival("student", "the student", "vit-a", 1_234_567, "runs/a", student),
        rival("deit", "DeiT-Ti's <shape>", "vit-b", 1_200_000, "runs/b", hits(50, 52), student),
    )
    return Comparison(
        dataset="photos",
        num_images=100,
        seeds=(0, 1),
        epochs=9,
        majority=54.2,
        majority_class="<b>",
        teacher="resnet20",
        teacher_acc=90.5,
        rivals=rivals,
        left_out=("the largest & more: it is the student",),
        verdict=verdict(rivals, 2, 100),
        page="p",
        file="f",
    )


def test_the_page_says_who_is_better_and_escapes_names(found):
    page = comparison_page(found).decode()
    assert "The student names 81.0 % of 100 images right" in page
    assert "DeiT-Ti&#39;s &lt;shape&gt;" in page
    assert "<shape>" not in page
    assert "&lt;b&gt;, 54.20 % of the test images" in page
    assert "<li>the largest &amp; more: it is the student</li>" in page
    assert len(re.findall("data:image/png", page)) == 2  # for light and dark


def test_nothing_is_said_of_what_was_not_left_out(found):
    assert "Left out" not in comparison_page(dataclasses.replace(found, left_out=())).decode()


def test_a_line_has_the_difference(found):
    student, deit = (rival_cells(each) for each in found.rivals)
    assert student[:3] == ["the student", "1.23M", "81.00"]
    assert student[4:6] == ["", ""]
    assert deit[4] == "+30.0"
    assert deit[-1] == "vit-b"
    assert rival_cells(found.rivals[1], "deit")[0] == "deit"


def test_the_figure_has_a_dot_for_every_seed_and_the_mean(found):
    (axes,) = plot_comparison(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["DeiT-Ti's <shape>", "the student"]
    dots = [list(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert [50, 52] in [list(map(round, xs)) for xs in dots]
    assert {text.get_text() for text in axes.texts} == {"teacher", "majority class"}
