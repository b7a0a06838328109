"""The page: what it says of a run, and that it says nothing as a browser's instruction."""

import dataclasses
import functools
import html
import itertools
import re

import pyarrow.fs as pafs
import pytest

from tests.conftest import SMALL_SPACES
from tvt_ray.errors import UsageError
from tvt_ray.report.page import NUM_LISTED, write_report
from tvt_ray.runs.config import load_config
from tvt_ray.scoring.ranking import make_ranking
from tvt_ray.scoring.reader import ReadingTask, make_row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.storage.locations import RemotePath

EVIL = "<script>alert('&')</script>"
PAIR = ("attention_similarity", "l2_norm")


EVERY_SPACE = pytest.mark.parametrize("name", SMALL_SPACES)


@pytest.fixture
def space():
    """One will do where a page is the same for all."""
    return SMALL_SPACES["pit"]


@pytest.fixture
def run_config(space):
    return config_of(space)


def config_of(space):
    return load_config(None, [{"space": space.model_dump(mode="json")}])


@pytest.fixture(scope="module")
def page_of_all(tmp_path_factory):
    """A space's name -> all its rows, of which one failed, their page ranked by `tvt`, and its folder; drawn once."""

    @functools.cache
    def draw(name):
        space, folder = SMALL_SPACES[name], tmp_path_factory.mktemp(name)
        first, *others = make_rows(space, PAIR)
        failed = dataclasses.replace(first, status="failed", error="RuntimeError: no", readings={}, searcher="tpe")
        return [failed, *others], page_of(folder, [failed, *others], config_of(space), "tvt"), folder

    return draw


def make_rows(space, names, count=None):
    """Rows of the whole space, with readings that are made up."""
    task = ReadingTask(space, 10, (), 0, probe=None)
    archs = itertools.islice(space.enumerate(), count)
    return [
        dataclasses.replace(
            make_row(task, arch, {name: (number * (k + 3)) % 17 / 7 for k, name in enumerate(names)}, None, 0.5),
            searcher="random",
        )
        for number, arch in enumerate(archs)
    ]


def page_of(folder, rows, config, by="params"):
    """The page that is written, as text."""
    ranking = make_ranking(rows, by, Calibration.from_rows(rows))
    write_report(folder / "report.html", rows, ranking, config)
    return (folder / "report.html").read_text()


def table_of(page):
    """Cells of the table, line by line, the head first."""
    (table,) = re.findall(r"<table[ >].*?</table>", page, re.DOTALL)
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in re.findall(r"<tr>(.*?)</tr>", table)]


def facts_of(page):
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))


def test_the_page_stands_alone_beside_its_figure(page_of_all):
    _, page, folder = page_of_all("pit")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.png"]
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert page.startswith("<!doctype html>")
    assert not re.search(r'(src|srcset|href)="(?!data:)', page)
    assert "<script" not in page


def test_the_page_is_written_to_a_bucket_too(tmp_path, space, run_config):
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    rows = make_rows(space, PAIR, 5)
    ranking = make_ranking(rows, "params", Calibration(()))
    write_report(RemotePath(store, "run/report.html", "s3://run/report.html"), rows, ranking, run_config)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["report.html", "report.png"]


@EVERY_SPACE
def test_the_table_has_one_line_for_each_shape_the_best_first(name, page_of_all):
    rows, page, _ = page_of_all(name)
    space, ranking = SMALL_SPACES[name], make_ranking(rows, "tvt", Calibration.from_rows(rows))
    head, *lines = table_of(page)
    assert head == ["#", "architecture", "score", "parameters", "FLOPs", "attention_similarity", "l2_norm"]
    assert len(lines) == min(NUM_LISTED, len({row.shape for row in rows if row.status == "ok"}))
    best = ranking.top(NUM_LISTED)
    assert len({each.row.shape for each in best}) == len(lines)
    for number, (line, each) in enumerate(zip(lines, best, strict=True), 1):
        assert line[0] == str(number)
        assert each.row.arch_id in line[1]
        assert html.escape(space.describe(space.from_json(each.row.arch))) in line[1]
        assert line[2] == f"{each.score:.4f}"


def test_shapes_are_fewer_than_rows_where_heads_are_all_that_differs(tmp_path):
    space = SMALL_SPACES["autoformer"]
    config = load_config(None, [{"space": space.model_dump(mode="json")}])
    rows = make_rows(space, PAIR)
    page = page_of(tmp_path, rows, config)
    assert len(table_of(page)) - 1 == len({row.shape for row in rows}) == 7
    assert facts_of(page)["scored"] == "80, of 7 different shapes"


@EVERY_SPACE
def test_the_page_says_what_the_run_was(name, page_of_all):
    facts, space = facts_of(page_of_all(name)[1]), SMALL_SPACES[name]
    assert facts["dataset"] == "digits"
    assert facts["teacher"] == "resnet20"
    assert facts["space"] == f"{space.name}, 32 pixels, {space.size()} architectures"
    assert facts["budget"] == "no budget"
    assert facts["searcher"] == "random, tpe"
    assert facts["failed"] == "1"
    assert facts["score"] == "tvt"
    assert facts["seed"] == "0"


def test_the_config_is_on_the_page(tmp_path, space, run_config):
    page = page_of(tmp_path, make_rows(space, PAIR), run_config)
    assert "failed" not in facts_of(page)
    (config,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert html.unescape(config) == run_config.to_yaml()


def test_a_strangers_texts_are_shown_and_not_obeyed(tmp_path, space, run_config):
    """Ids, readings' names, searchers, the dataset's name and the score's."""
    rows = [
        dataclasses.replace(row, arch_id=f"{EVIL}{number}", searcher=EVIL, readings={EVIL: 1.0, "l2_norm": 2.0})
        for number, row in enumerate(make_rows(space, PAIR, 3))
    ]
    config = run_config.model_copy(
        update={
            "data": run_config.data.model_copy(update={"name": f"folder:{EVIL}"}),
            "teacher": run_config.teacher.model_copy(update={"name": EVIL}),
        }
    )
    ranking = dataclasses.replace(make_ranking(rows, "params", Calibration(())), by=EVIL)
    write_report(tmp_path / "report.html", rows, ranking, config)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "alert('&')" not in page
    shown = "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"
    facts = facts_of(page)
    assert facts["dataset"] == f"folder:{shown}"
    assert (facts["teacher"], facts["searcher"], facts["score"]) == (shown, shown, shown)
    head, first, *_ = table_of(page)
    assert shown in head
    assert f"<code>{shown}" in first[1]
    assert shown in page.partition("<pre>")[2]  # the config names the dataset too


def test_braces_in_a_strangers_text_are_text(tmp_path, space, run_config):
    rows = [dataclasses.replace(row, arch_id="{config}{0}") for row in make_rows(space, PAIR, 1)]
    assert "<code>{config}{0}</code>" in page_of(tmp_path, rows, run_config)


@pytest.mark.parametrize("names", [(), ("rank_sum", "log_norm"), ("l2_norm",), ("attention_similarity",)], ids=str)
def test_a_run_that_did_not_read_tvts_pair_has_a_page_too(names, tmp_path, space, run_config):
    page = page_of(tmp_path, make_rows(space, names), run_config)
    head, *lines = table_of(page)
    assert head[5:] == sorted(names)
    assert {len(line) for line in lines} == {len(head)}
    assert (tmp_path / "report.png").exists()


def test_a_reading_that_a_row_lacks_is_left_empty(tmp_path, space, run_config):
    rows = make_rows(space, ("rank_sum", "log_norm"), 2)
    best, other = sorted(rows, key=lambda row: -row.params)
    lacking = dataclasses.replace(other, readings={"rank_sum": 1.0}, shape="another")
    line = table_of(page_of(tmp_path, [best, lacking], run_config))[2]
    assert line[5:] == ["", "1"]


def test_without_a_score_there_is_no_page(tmp_path, space, run_config):
    rows = [dataclasses.replace(row, status="failed") for row in make_rows(space, PAIR, 3)]
    write_report(tmp_path / "report.html", rows, make_ranking(rows, "params", Calibration(())), run_config)
    write_report(tmp_path / "report.html", [], make_ranking([], "params", Calibration(())), run_config)
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_holds_no_architecture_of_the_space_is_one_line(tmp_path, space, run_config):
    rows = make_rows(space, PAIR)
    ranking = make_ranking(rows, "params", Calibration(()))
    last = ranking.top(NUM_LISTED)[-1].row
    tampered = [dataclasses.replace(row, arch={"embed_dim": EVIL}) if row is last else row for row in rows]
    with pytest.raises(UsageError, match=re.escape(last.arch_id)) as error:
        page_of(tmp_path, tampered, run_config)
    assert "\n" not in str(error.value)
