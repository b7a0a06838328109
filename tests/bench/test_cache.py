from tvt_ray.bench.cache import ReadingCache
from tvt_ray.search.rows import Row


def row(arch_id, status="ok", **components):
    return Row(arch_id, "autoformer", {"depth": 1}, 1, 1, status, None, 0, 0.0, components)


def test_readings_are_kept_by_key_and_proxy(tmp_path):
    cache = ReadingCache({"seed": 0}, tmp_path)
    cache.add("nwot", [row("a", nwot=1.0), row("b", "failed")])
    cache.add("nwot", [row("c", nwot=3.0)])
    cache.compact("nwot")
    assert {name: r.components for name, r in ReadingCache({"seed": 0}, tmp_path).read("nwot").items()} == {
        "a": {"nwot": 1.0},
        "c": {"nwot": 3.0},
    }
    assert cache.read("snip") == {}
    assert ReadingCache({"seed": 1}, tmp_path).read("nwot") == {}


def test_a_proxy_whose_file_changes_is_read_anew(tmp_path, monkeypatch):
    cache = ReadingCache({}, tmp_path)
    cache.add("nwot", [row("a", nwot=1.0)])
    monkeypatch.setattr("inspect.getsource", lambda module: "def nwot(): ...  # edited")
    assert cache.read("nwot") == {}
