"""The page of an evaluation: what it says, and that it says nothing as a browser's instruction."""

from __future__ import annotations

import re

import numpy as np
import pytest
from markupsafe import escape

from tvt_ray.quality.evaluation import Evaluation, Mistake
from tvt_ray.quality.statistics import quality_of
from tvt_ray.report.evaluation_page import MAX_MATRIX, evaluation_page, plot_reliability, verdict

EVIL = "<script>alert('&')</script>{0}"
PIXELS = np.full((64, 64, 3), 77, np.uint8)


def made(labels, predicted, names, confidence=0.9, mistakes=(), notes=()):
    others = (1 - confidence) / (len(names) - 1)
    probabilities = np.where(np.eye(len(names))[predicted] == 1, confidence, others)
    quality = quality_of(np.array(labels), probabilities, names)
    return Evaluation("/r/s", "imagefolder:/d/photos", "f", "test", quality, mistakes, notes, "p", "j")


def page_of(found, pictures=()):
    return evaluation_page(found, pictures).decode()


def table_of(page, title):
    """Cells of the first table after a title, line by line."""
    table = re.search(r"<table.*?</table>", page.split(f"<h2>{title}</h2>")[1], re.DOTALL)[0]
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line) for line in re.findall(r"<tr>(.*?)</tr>", table)]


def test_the_page_stands_alone_and_suits_dark_and_narrow_screens():
    page = page_of(made([0, 1], [0, 0], ("a", "b"), mistakes=(Mistake("1", "b", "a", 90.0),)), [PIXELS])
    assert page.startswith("<!doctype html>")
    assert not re.search(r'(src|href|srcset)="(?!data:)', page)
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert len(re.findall("<table", page)) == len(re.findall('<div class="scroll"><table', page)) == 3


def test_it_says_what_the_evaluation_found():
    page = page_of(made([0, 0, 1, 1], [0, 0, 1, 0], ("ants", "bees"), notes=("a note",)))
    assert "<h1>s on photos</h1>" in page
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["split"] == "test, 4 images"
    assert facts["accuracy"].startswith("75.00 %")
    assert facts["majority class"] == "ants, 50.00 % of the images"
    assert facts["calibration error"] == "15.00 points in 15 bins, on average 15.00 points more sure than right"
    assert "<li>a note</li>" in page
    assert table_of(page, "Classes")[1] == ["ants", "2", "100.0", "34.2 to 100.0", "66.7", "80.0"]
    assert table_of(page, "Confusion") == [["", "ants", "bees"], ["ants", "2", ""], ["bees", "1", "1"]]
    assert table_of(page, "Calibration")[1] == ["86.7 to 93.3", "4", "90.0", "75.0"]


@pytest.mark.parametrize(
    ("right", "end"), [(95, "better than that"), (50, "which is no clear difference"), (5, "worse than that")]
)
def test_the_verdict_is_in_words_also_when_the_student_lost(right, end):
    labels = [0, 1] * 50
    predicted = [label if place < right else 1 - label for place, label in enumerate(labels)]
    said = verdict(made(labels, predicted, ("a", "b")).quality)
    assert said.startswith(f"{right}.00 % named right (95 %: ")
    assert said.endswith(f"always naming a is right for 50.00 %: {end}")


def test_strangers_texts_are_shown_and_not_obeyed():
    mistakes = (Mistake(EVIL, EVIL, "b", 90.0),)
    found = made([0, 1], [1, 1], (EVIL, "b"), mistakes=mistakes, notes=(EVIL,))
    page = page_of(Evaluation(EVIL, EVIL, "f", EVIL, found.quality, mistakes, (EVIL,), "p", "j"), [PIXELS])
    assert "<script" not in page
    assert "alert('&')" not in page
    assert table_of(page, "Classes")[1][0] == table_of(page, "Confusion")[1][0] == str(escape(EVIL))
    assert str(escape(EVIL)) in page.partition("<figcaption>")[2]


def test_mistakes_are_shown_as_pictures_with_what_they_were_taken_for():
    mistakes = (Mistake("test/bees/1.png", "bees", "ants", 90.0),)
    page = page_of(made([1], [0], ("ants", "bees"), mistakes=mistakes), [PIXELS])
    (figure,) = re.findall(r"<figure>(.*?)</figure>", page)
    assert 'src="data:image/png;base64,' in figure
    assert "<b>bees</b> taken for <b>ants</b>, 90.0 %<br><small>test/bees/1.png</small>" in figure
    assert "No image was named wrong." in page_of(made([1], [1], ("ants", "bees")))


def test_of_many_classes_the_most_frequent_confusions_are_listed():
    names = tuple(f"class {number}" for number in range(MAX_MATRIX + 1))
    page = page_of(made([0, 0, 3, 4], [7, 7, 2, 4], names))
    assert table_of(page, "Confusion") == [
        ["class", "taken for", "images"],
        ["class 0", "class 7", "2"],
        ["class 3", "class 2", "1"],
    ]


def test_bars_are_accuracies_over_the_bins_that_have_images():
    probabilities = np.array([[0.9, 0.1], [0.88, 0.12], [0.6, 0.4]])
    bins = quality_of(np.array([0, 1, 0]), probabilities, ("a", "b"), num_bins=5).reliability
    (axes,) = plot_reliability(bins).axes
    assert [(round(bar.get_x()), bar.get_height()) for bar in axes.patches] == [(40, 100), (80, 50)]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == [0, 100]
