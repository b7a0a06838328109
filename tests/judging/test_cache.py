"""Readings that are kept between calls."""

import dataclasses

from tests.conftest import make_row
from tvt_ray.judging.cache import ReadingCache


def read_by_nwot(cache):
    return {arch_id: row.readings for arch_id, row in cache.read("nwot").items()}


def test_readings_are_kept_by_key_and_proxy(tmp_path):
    cache = ReadingCache({"seed": 0}, tmp_path)
    cache.add("nwot", [make_row(1, nwot=1.0), make_row(2, status="failed")])
    cache.add("nwot", [make_row(3, nwot=3.0)])
    cache.compact("nwot")
    assert read_by_nwot(ReadingCache({"seed": 0}, tmp_path)) == {"a1": {"nwot": 1.0}, "a3": {"nwot": 3.0}}
    assert cache.read("snip") == {}
    assert ReadingCache({"seed": 1}, tmp_path).read("nwot") == {}


def test_the_first_reading_of_an_architecture_counts(tmp_path):
    """Two calls at once may read the same; what an earlier one printed stays true."""
    cache, row = ReadingCache({}, tmp_path), make_row(1, nwot=1.0)
    cache.add("nwot", [row])
    cache.add("nwot", [dataclasses.replace(row, readings={"nwot": 2.0})])
    assert read_by_nwot(cache) == {"a1": {"nwot": 1.0}}


def test_a_proxy_whose_file_changes_is_read_anew(tmp_path, monkeypatch):
    cache = ReadingCache({}, tmp_path)
    cache.add("nwot", [make_row(1, nwot=1.0)])
    monkeypatch.setattr("inspect.getsource", lambda module: "def nwot(): ...  # edited")
    assert cache.read("nwot") == {}
