"""Cells of `tvt predict --out FILE.csv`, which people open in spreadsheets."""

import csv
import io

import pytest

from tvt_ray.cli.predict import _as_csv
from tvt_ray.inference import Prediction


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(1)", "'@SUM(1)"),
        ("+1+1", "'+1+1"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("-1", "-1"),
        ("+2.5e3", "+2.5e3"),
        ("cat=dog", "cat=dog"),
    ],
)
def test_what_a_spreadsheet_would_run_becomes_text(text, cell):
    table = _as_csv([Prediction(text, text, 0.5, None), Prediction("b.jpg", None, None, text)])
    rows = list(csv.reader(io.StringIO(table)))
    assert rows[1][:2] == [cell, cell]
    assert rows[2] == ["b.jpg", "", "", cell]
