"""`tvt rank` on a real cluster: what it prints, what it caches, what it refuses."""

import json
import random
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from tests.conftest import SMALL, SMALL_SPACES, call
from tvt_ray.proxies import PROXIES
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.scoring.scores import score_names

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = SMALL_SPACES["autoformer"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Twelve architectures with invented accuracies, one of them the parameter count."""
    archs = random.Random(3).sample(list(SPACE.enumerate()), 12)
    path = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    lines = [
        {
            "space": "autoformer",
            "arch": SPACE.to_json(arch),
            "size_acc": SPACE.cost(arch, 10).params / 1000,
            "noise_acc": random.Random(i).random(),
        }
        for i, arch in enumerate(archs)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path, archs


@pytest.fixture(scope="module")
def flags(cluster, truth):
    return ["rank", "--ground-truth", truth[0], *SMALL, "--ray-address", cluster]


def test_rank_prints_what_the_scores_and_accuracies_give(capsys, flags, truth, teacher, probe):
    code, out, err = call(capsys, *flags, "--proxies", "capacity,tvt,params,nwot,attention_similarity", "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    entries = {(e["column"], e["proxy"]): e for e in result["columns"]}
    assert len(entries) == len(result["columns"]) == 10
    perfect = entries["size_acc", "params"]
    assert (perfect["space"], perfect["n"]) == ("autoformer", 12)
    assert perfect["kendall"] == perfect["spearman"] == pytest.approx(1)
    assert perfect["top1_regret"] == perfect["top5_regret"] == 0
    reader = Reader(ReadingTask(SPACE, 10, ("attention_similarity", "nwot"), 0, probe))
    readings = [reader.readings(arch) for arch in truth[1]]
    lines = [json.loads(line) for line in truth[0].read_text().splitlines()]
    for proxy in ("attention_similarity", "nwot"):
        entry = entries["noise_acc", proxy]
        expected = stats.kendalltau([r[proxy] for r in readings], [line["noise_acc"] for line in lines])[0]
        assert entry["kendall"] == pytest.approx(expected)
        assert entry["kendall_ci95"][0] < expected < entry["kendall_ci95"][1]


def test_another_fusion_of_what_was_scored_costs_nothing(capsys, flags):
    first = call(capsys, *flags, "--proxies", "tvt,capacity", "--json")
    again = call(capsys, *flags, "--proxies", "l2_norm,rank_sum,tvt,capacity,depth", "--json")
    assert first[0] == again[0] == 0
    assert "architectures" not in again[2]  # no meter ran
    entries = [json.loads(out.splitlines()[-1])["columns"] for _, out, _ in (first, again)]
    assert all(entry in entries[1] for entry in entries[0])


def test_a_band_is_ranked_beside_the_whole_table(capsys, flags, truth):
    params = sorted(SPACE.cost(arch, 10).params for arch in truth[1])
    band = ["--min-params", str(params[2]), "--max-params", str(params[8])]
    code, out, err = call(capsys, *flags, "--proxies", "params", "--columns", "size_acc", *band, "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert [entry["n"] for entry in result["columns"]] == [sum(params[2] <= p <= params[8] for p in params)]
    assert [entry["n"] for entry in result["whole_table"]] == [12]


def test_seeds_repeat_with_other_weights_and_images(capsys, flags, tmp_path):
    out_folder = tmp_path / "out"
    code, out, err = call(
        capsys, *flags, "--proxies", "attention_similarity,params", "--seeds", "2", "--out", out_folder, "--json"
    )
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    noise = {entry["proxy"]: entry["noise_share"] for entry in result["noise"]}
    assert noise["params"] == pytest.approx(0, abs=1e-9)
    assert 0 < noise["attention_similarity"] <= 1
    assert all(len(entry["kendall_by_seed"]) == 2 for entry in result["columns"])
    stored = pq.read_table(out_folder / "scores.parquet").to_pydict()
    assert len(stored["arch_id"]) == 12
    assert np.std(stored["attention_similarity"]) > 0
    assert pq.read_table(out_folder / "ranking.parquet").num_rows == len(result["columns"])
    for column in ("size_acc", "noise_acc"):
        assert (out_folder / f"autoformer-{column}.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_for_people_has_every_column_and_the_mean(capsys, flags):
    code, out, err = call(capsys, *flags, "--proxies", "params,depth")
    assert code == 0, err
    for text in ("autoformer, size_acc: 12 architectures", "autoformer, noise_acc", "mean of 2 columns", "1.000"):
        assert text in out


def test_labels_teach_the_surrogate_and_the_score_is_judged_on_the_same_rows(capsys, flags):
    labelled = [*flags, "--proxies", "params", "--labels", "8", "--draws", "3"]
    code, out, err = call(capsys, *labelled, "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    plain = json.loads(call(capsys, *flags, "--proxies", "params", "--json")[1].splitlines()[-1])
    zero = json.loads(call(capsys, *flags, "--proxies", "params", "--labels", "0", "--json")[1].splitlines()[-1])
    assert zero == plain
    measured = [entry for entry in result["columns"] if entry["proxy"] == "measured"]
    assert [entry for entry in result["columns"] if entry["proxy"] != "measured"] == plain["columns"]
    assert [(entry["column"], entry["n"]) for entry in measured] == [("size_acc", 4), ("noise_acc", 4)]
    assert [entry["proxy"] for entry in result["held_out"]] == ["capacity", "capacity"]
    assert (result["num_labels"], result["num_draws"]) == (8, 3)
    _, out, _ = call(capsys, *labelled)
    assert "measured" in out
    assert "capacity, as judged" in out


def test_a_proxy_that_fails_ends_the_run_and_keeps_the_others(capsys, flags):
    """ZiCo wants four images, the probe has three; what another proxy read before it stays in the cache."""
    three = ["--set", "probe.num_images=3", "--json"]
    code, _, err = call(capsys, *flags, "--proxies", "nwot,zico", *three)
    assert code == 1
    assert "zico failed on 12 of 12 architectures" in err.splitlines()[-1]
    assert "at least 4 probe images" in err.splitlines()[-1]
    code, _, err = call(capsys, *flags, "--proxies", "nwot", *three)
    assert code == 0
    assert "architectures" not in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--proxies", "params,zen-score"], "unknown proxy 'zen-score'; choices: capacity, tvt, "),
        (["--columns", "acc"], "no column 'acc'; choices: size_acc, noise_acc"),
        (["--ground-truth", "/no/such"], "there is no ground-truth file /no/such"),
        (["--seeds", "0"], "argument --seeds: at least 1; got 0"),
        (["--labels", "5"], "--labels is 0, or at least 8; got 5"),
        (["--labels", "10"], "at most 9 of the 12 of autoformer; got 10"),
        (["--labels", "8", "--draws", "0"], "argument --draws: at least 1; got 0"),
        (["--min-params", "1G", "--proxies", "params"], "at least 3 are needed"),
        (["--min-params", "lots"], "a count is a number"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_read(capsys, flags, more, message):
    code, _, err = call(capsys, *flags, *more)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not re.search(r"teacher|ray:|\d/s", err)


def test_every_proxy_can_be_named():
    assert {*PROXIES, "tvt", "capacity", "params", "flops", "depth"} <= set(score_names())


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(capsys, flags, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    code, out, err = call(capsys, *flags, "--proxies", "log_norm", "--json")
    assert code == 0, err
    assert len(json.loads(out.splitlines()[-1])["columns"]) == 2
    assert "the cache of readings is not kept" in err


def test_a_column_is_no_path(capsys, flags, truth, tmp_path):
    texts, file = truth[0].read_text().splitlines(), tmp_path / "truth.jsonl"
    lines = [{**json.loads(text), "../../out_acc": 1.0 + number} for number, text in enumerate(texts)]
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    out_folder = tmp_path / "deep" / "er" / "out"
    code, _, err = call(capsys, *flags, "--ground-truth", file, "--proxies", "params", "--out", out_folder)
    assert code == 0, err
    assert not list(tmp_path.glob("*.png"))
    assert len(list(out_folder.glob("*.png"))) == 3
