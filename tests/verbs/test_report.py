"""Reports of runs that are to stay as they are, and of those that cannot be written to."""

import json
import os

import pytest

from tests.conftest import call
from tvt_ray.errors import UsageError
from tvt_ray.verbs.report import report


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def closed(run_folder, monkeypatch):
    """The run, as one that this user may read and not write."""
    is_open = os.access

    def access(place, mode, **options):
        return is_open(place, mode, **options) and not (mode & os.W_OK and run_folder.path in (place, *place.parents))

    monkeypatch.setattr(os, "access", access)
    return run_folder


def test_a_report_goes_elsewhere_and_the_run_stays_as_it_is(run_folder, tmp_path, capsys):
    before = contents(run_folder.path)
    page = tmp_path / "pages" / "mine.html"
    ranking = report(run_folder.path, score="log_norm", out=page)
    assert ranking.by == "log_norm"
    assert ranking.top(1)[0].row.readings["log_norm"] == 4.0
    assert "log_norm" in page.read_text()
    assert page.with_suffix(".png").is_file()
    assert contents(run_folder.path) == before
    code, out, _ = call(capsys, "report", run_folder.path, "--out", page, "--json")
    assert code == 0
    assert json.loads(out)["report"] == str(page)
    for place, said in (
        (tmp_path / "a.txt", "--out ends in .html; got a.txt"),
        (page / "b.html", "cannot be written to"),
    ):
        with pytest.raises(UsageError, match=said):
            report(run_folder.path, out=place)


def test_a_run_that_cannot_be_written_to_is_reported_on_the_terminal(closed, tmp_path, capsys):
    before = contents(closed.path)
    code, out, err = call(capsys, "report", closed.path, "--score", "log_norm")
    assert code == 0
    assert "best of 3 architectures by log_norm" in out
    assert "report  " not in out
    assert f"no report is written: {closed.path} cannot be written to: " in err
    assert "; --out FILE.html writes one elsewhere" in err
    assert contents(closed.path) == before
    code, out, _ = call(capsys, "report", closed.path, "--json")
    assert (code, json.loads(out)["report"]) == (0, None)
    code, out, _ = call(capsys, "report", closed.path, "--out", tmp_path / "mine.html")
    assert (code, (tmp_path / "mine.html").is_file()) == (0, True)
