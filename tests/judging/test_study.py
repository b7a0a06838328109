"""What `tvt rank` makes of readings, without Ray: they are read here, and kept between calls."""

import dataclasses
import re

import pytest
import torch

from tests.conftest import SMALL_SPACES, make_row
from tvt_ray.errors import RunError, UsageError
from tvt_ray.judging.study import RankRequest, ReadingCache, check_request, read_or_score
from tvt_ray.proxies.probe import Probe
from tvt_ray.scoring.reader import Reader, ReadingTask

SPACE = SMALL_SPACES["autoformer"]
ARCHS = list(SPACE.enumerate())[:5]


def score_here(calls):
    def score(task, archs, keep):
        calls.append((task.proxies, len(archs)))
        rows = Reader(task).read_all(archs)
        keep(rows)
        return rows

    return score


@pytest.fixture
def task(tmp_path, monkeypatch):
    """What is read here looks at weights alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return ReadingTask(SPACE, 10, (), 0, Probe(torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)))


def test_each_proxy_reads_each_architecture_once_however_often_it_is_asked(task):
    calls = []
    few = read_or_score(task, ARCHS[:3], ["l2_norm"], score_here(calls))
    rows = read_or_score(task, ARCHS, ["l2_norm", "log_norm"], score_here(calls))
    assert calls == [(("l2_norm",), 3), (("l2_norm",), 2), (("log_norm",), 5)]
    reader = Reader(ReadingTask(SPACE, 10, ("l2_norm", "log_norm"), 0, task.probe))
    assert [rows[SPACE.arch_id(arch)].readings for arch in ARCHS] == [reader.readings(arch) for arch in ARCHS]
    assert few.keys() == {SPACE.arch_id(arch) for arch in ARCHS[:3]}


def test_readings_of_several_devices_are_told(task, capsys):
    def on_another(task, archs, keep):
        rows = [dataclasses.replace(row, device="NVIDIA H200") for row in score_here([])(task, archs, list)]
        keep(rows)
        return rows

    read_or_score(task, ARCHS[:3], ["l2_norm"], on_another)
    assert "several devices" not in capsys.readouterr().err
    read_or_score(task, ARCHS, ["l2_norm"], score_here([]))
    assert re.search(r"readings are of several devices \(CPU, .*, NVIDIA H200\)", capsys.readouterr().err)


def test_a_failed_reading_ends_it_and_is_not_kept(task):
    def fail(task, archs, keep):
        rows = [make_row(number, status="failed") for number, _ in enumerate(archs)]
        keep(rows)
        return rows

    calls = []
    with pytest.raises(RunError, match="l2_norm failed on 5 of 5 architectures; a0: RuntimeError: no"):
        read_or_score(task, ARCHS, ["l2_norm"], fail)
    read_or_score(task, ARCHS, ["l2_norm"], score_here(calls))
    assert calls == [(("l2_norm",), 5)]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RankRequest((), ("zen-score",)), "unknown proxy 'zen-score'; choices: capacity, tvt, "),
        (RankRequest((), ("tvt",), num_seeds=0), "--seeds is at least 1; got 0"),
    ],
)
def test_what_cannot_be_compared_is_said_at_once(request_, message):
    with pytest.raises(UsageError, match=message):
        check_request(request_)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def read_by_nwot(cache):
    return {arch_id: row.readings for arch_id, row in cache.read("nwot").items()}


def test_readings_are_kept_by_key_and_proxy(own_cache):
    cache = ReadingCache({"seed": 0})
    cache.add("nwot", [make_row(1, nwot=1.0), make_row(2, status="failed")])
    cache.add("nwot", [make_row(3, nwot=3.0)])
    cache.compact("nwot")
    assert read_by_nwot(ReadingCache({"seed": 0})) == {"a1": {"nwot": 1.0}, "a3": {"nwot": 3.0}}
    assert cache.read("snip") == {}
    assert ReadingCache({"seed": 1}).read("nwot") == {}


def test_the_first_reading_of_an_architecture_counts(own_cache):
    """Two calls at once may read the same; what an earlier one printed stays true."""
    cache, row = ReadingCache({}), make_row(1, nwot=1.0)
    cache.add("nwot", [row])
    cache.add("nwot", [dataclasses.replace(row, readings={"nwot": 2.0})])
    assert read_by_nwot(cache) == {"a1": {"nwot": 1.0}}


def test_a_proxy_whose_file_changes_is_read_anew(own_cache, monkeypatch):
    cache = ReadingCache({})
    cache.add("nwot", [make_row(1, nwot=1.0)])
    monkeypatch.setattr("inspect.getsource", lambda module: "def nwot(): ...  # edited")
    assert cache.read("nwot") == {}
