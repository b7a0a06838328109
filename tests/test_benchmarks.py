"""The benchmarks, most of them as commands, on the digits."""

import itertools
import json
import os
import runpy
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import REPO, SMALL, SMALL_SPACES
from tests.data.samples import labelled
from tvt_ray.data.preprocess import normalize

pytestmark = pytest.mark.slow


def bench(name, *flags):
    command = [sys.executable, f"benchmarks/{name}.py", *SMALL, *map(str, flags)]
    done = subprocess.run(command, check=False, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(monkeypatch, capsys, name, *flags):
    """The same in this process, where nothing is left to train: the exit code and the last line of errors."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALL, *map(str, flags)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPO / "benchmarks" / f"{name}.py"), run_name="__main__")
    return stop.value.code, capsys.readouterr().err.splitlines()[-1]


def test_ground_truth_is_made_kept_and_read(teacher, tmp_path, monkeypatch, capsys):
    """Two cohorts in two processes; called again, nothing is trained; the comparison of terms reads the file."""
    out = tmp_path / "truth.jsonl"
    recipe = ["--set", "distill.epochs=1", "--set", "distill.batch_size=32", "--num-images", "96"]
    make = ["--num-archs", "8", "--cohort-size", "4", "--workers", "2", "--column", "digits", *recipe, "--out", out]
    assert "8 architectures in" in bench("ground_truth", *make)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({json.dumps(line["arch"]) for line in lines}) == 8
    assert all(0 <= line["digits_kd_acc"] <= 100 for line in lines)
    assert len({line["digits_kd_acc"] for line in lines}) > 1
    before = out.read_bytes()
    (tmp_path / "truth.state" / "0.pt").write_bytes(b"not read again")
    assert here(monkeypatch, capsys, "ground_truth", *make)[0] == 0
    assert out.read_bytes() == before
    code, message = here(monkeypatch, capsys, "ground_truth", *make, "--set", "distill.epochs=2")
    assert code == 2
    assert "students of another recipe" in message
    code, message = here(monkeypatch, capsys, "ground_truth", *make, "--num-images", "9999")
    assert code == 2
    assert "--num-images is 1 to 1,294 here; got 9,999" in message

    printed = bench("terms", "--ground-truth", out, "--seeds", "2")
    (rows,) = json.loads(printed.splitlines()[-1]).values()
    by_form = {row["form"]: row for row in rows}
    assert {"parameters", "sum of norms (l2_norm)", "energy: last", "images: guided blocks"} <= by_form.keys()
    assert by_form["parameters"]["noise_share"] == pytest.approx(0, abs=1e-9)
    assert by_form["energy: last"]["noise_share"] > 0
    space = SMALL_SPACES["autoformer"]
    sizes = [space.cost(space.from_json(line["arch"]), 10).params for line in lines]
    assert len(set(sizes)) > 1


@pytest.mark.ray
def test_a_search_survives_a_node_and_uses_the_one_that_joins(teacher):
    """Head and two nodes, each with its own raylet; one of them is killed and another joins."""
    command = [sys.executable, "benchmarks/chaos.py", "--runs", "1", "--num-samples", "150", "--num-checked", "10"]
    done = subprocess.run(command, check=False, cwd=REPO, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "runs": 1,
        "rows_lost": 0,
        "duplicates": 0,
        "wrong_scores": 0,
        "added_nodes_used": 1,
    }


def test_scoring_is_compared_with_the_published_way():
    flags = ["--cases", "digits", "--num-archs", "1", "--num-images", "4", "--num-ranked", "6"]
    flags += ["--precision", "float32,bfloat16"]
    command = [sys.executable, "benchmarks/naive.py", *flags]
    done = subprocess.run(command, check=True, cwd=REPO, capture_output=True, text=True, timeout=120)
    naive = json.loads(done.stdout.splitlines()[-1])
    assert naive["speedup"].keys() == {"digits", "digits-bfloat16"}
    assert naive["difference"]["digits"] < 1e-5
    assert naive["tau"]["digits"]["capacity"] == 1


def test_the_drivers_cost_is_of_the_rows_between_two_marks():
    scale = runpy.run_path(str(REPO / "benchmarks" / "scale.py"))
    mark, cost_ms = scale["Mark"], scale["cost_ms"]
    marks = [mark(0, 1.0, 0.0, 0), mark(64, 1.1, 0.002, 0), mark(100, 1.3, 0.006, 0), mark(164, 9.0, 9.0, 0)]
    assert cost_ms(marks, 0, 100) == pytest.approx((3.0, 3.0))
    assert cost_ms(marks, 70, 100) == pytest.approx((200 / 36, 4.0))
    assert scale["yardstick"]() > 0


def test_the_drivers_cost_is_measured_on_a_search_that_is_all_on_disk():
    command = [sys.executable, "benchmarks/scale.py", "--num-samples", "300", "--archs-per-trial", "8"]
    done = subprocess.run(command, check=True, cwd=REPO, capture_output=True, text=True, timeout=120)
    scale = json.loads(done.stdout.splitlines()[-1])
    assert scale.keys() == {"first_ms", "last_ms", "growth", "rss_growth_mib"}
    assert scale["first_ms"] > 0
    assert scale["last_ms"] > 0


def test_a_workers_share_of_rows_is_that_of_its_processor_time():
    watching = runpy.run_path(str(REPO / "benchmarks" / "watching.py"))
    look, span, worker = watching["Look"], watching["Span"], watching["Worker"]
    first = look(10.0, 100, {1: worker(0, True, 5.0, 5.0)})
    last = look(14.0, 120, {1: worker(0, True, 8.0, 8.5), 2: worker(1, True, 1.0, 1.0)})
    between = span(first, last)
    assert (between.seconds, between.num_rows, between.rate) == (4, 20, 5)
    assert [between.rows_of(pid) for pid in (1, 2)] == [15, 5]
    assert [between.busy(pid) for pid in (1, 2)] == [0.875, 0.25]


def test_only_workers_of_the_node_that_joins_late_import_slowly(tmp_path):
    """The environment of its raylet alone makes it so, and nothing of the package."""
    slow_environment = runpy.run_path(str(REPO / "benchmarks" / "workers.py"))["slow_environment"]
    (tmp_path / "torch.py").touch()
    script = tmp_path / "default_worker.py"
    script.write_text("import time; start = time.monotonic(); import torch; print(time.monotonic() - start)")
    other = script.with_name("agent.py")
    other.write_text(script.read_text())
    environment = {**os.environ, **slow_environment(tmp_path / "site", 2.0)}
    command = [sys.executable]
    slow, fast = (
        float(subprocess.run([*command, path], check=True, env=environment, capture_output=True, text=True).stdout)
        for path in (script, other)
    )
    assert slow >= 2 > fast


def test_distillation_is_timed_beside_a_plain_loop_timm_and_two_workers():
    result = json.loads(bench("distill", "--steps", 2, "--short-epochs", 8).splitlines()[-1])
    ratios = {"speed_ratio", "timm_ratio", "scaling_2_workers", "cohort_ratio", "job_ratio"}
    assert result.keys() == {*ratios, "data_wait_share"}
    assert all(value > 0 for value in result.values())
    assert result["data_wait_share"] < 1


def test_photographs_are_loaded_from_their_files_and_as_they_were_decoded(tmp_path):
    flags = ["--num-images", "16", "--megapixels", "0.5", "--num-timed", "4", "--out", str(tmp_path)]
    command = [sys.executable, "benchmarks/photos.py", *flags]
    done = subprocess.run(command, check=True, cwd=REPO, capture_output=True, text=True, timeout=120)
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(list(tmp_path.glob("16x0.5/*/*.jpg"))) == 16
    assert len(result["wait_shares"]) == 2
    assert all(0 <= share < 1 for share in [*result["wait_shares"], result["load_share"]])
    assert result["load_ratio"] > 0
    assert result["decoded_mib"] > 0


def test_a_larger_vits_weights_are_compared_with_drawn_ones(teacher, tmp_path):
    flags = ["--num-images", 64, "--large-images", 128, "--epochs", 2, "--large-epochs", 2, "--seeds", 2]
    flags += ["--set", "distill.batch_size=32", "--out", tmp_path / "larger"]
    result = json.loads(bench("init", *flags).splitlines()[-1])
    assert result["smaller"]["params"] <= result["larger"]["params"]
    differences = [b - a for a, b in zip(result["random"], result["selected"], strict=True)]
    assert differences == pytest.approx(result["differences"], abs=0.02)
    assert result["difference"] == pytest.approx(sum(differences) / 2, abs=0.02)
    assert [len(curve) for curve in result["by_epoch"].values()] == [2, 2]
    assert 0 <= result["start_acc"] <= 100
    again = ["--num-images", 32, "--epochs", 1, "--seeds", 1, "--source", tmp_path / "larger"]
    given = json.loads(bench("init", *again).splitlines()[-1])
    assert given["larger"] == result["larger"] | {"images": None}
    assert len(given["selected"]) == 1


def test_ways_to_follow_a_teacher_are_compared_and_gone_on_with(tmp_path, monkeypatch, capsys):
    for name, count in (("train", 84), ("test", 24)):
        (tmp_path / "own").mkdir(exist_ok=True)
        pq.write_table(labelled([0, 1, 2] * (count // 3), seed=count), tmp_path / "own" / f"{name}.parquet")
    space, archs = SMALL_SPACES["autoformer"], tmp_path / "archs.jsonl"
    chosen = list(itertools.islice(space.enumerate(), 2))
    archs.write_text("".join(json.dumps(space.to_json(arch)) + "\n" for arch in chosen))
    flags = ["--config", "configs/digits.yaml", "--dataset", f"parquet:{tmp_path / 'own'}", "--archs", archs]
    flags += ["--num-train", 84, "--num-test", 24, "--epochs", 2, "--seeds", 2, "--out", tmp_path / "out"]
    result = json.loads(bench("guidance", *flags).splitlines()[-1])
    assert result.keys() == {"alone", "bounded", "guided"}
    for way in result.values():
        assert way.keys() == {space.arch_id(arch) for arch in chosen}
        assert all((len(each["test"]), len(each["val"])) == (2, 2) for each in way.values())
    kept = tmp_path / "out" / "guided.seed1.json"
    assert [each["test"][1] for each in result["guided"].values()] == pytest.approx(
        [each["test"] for each in json.loads(kept.read_text()).values()], abs=0.01
    )
    before = kept.stat().st_mtime_ns
    monkeypatch.chdir(REPO)
    assert here(monkeypatch, capsys, "guidance", *flags)[0] == 0
    assert kept.stat().st_mtime_ns == before


def test_a_batch_augmented_at_once_is_that_of_augmented_images():
    """Without a crop or a flip it is the images."""
    augment = runpy.run_path(str(REPO / "benchmarks" / "augment.py"))
    as_it_is = augment["PLAIN"].model_copy(update={"scale": (1.0, 1.0), "hflip": 0.0})
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.allclose(augment["in_a_batch"](pixels, 16, as_it_is), normalize(pixels.float() / 255), atol=1e-4)
    command = [sys.executable, "benchmarks/augment.py", "--sizes", "16", "--num-images", "4", "--rounds", "1"]
    result = json.loads(subprocess.run(command, check=True, cwd=REPO, capture_output=True, text=True).stdout)
    assert result["16"].keys() == {"one_by_one", "batch", "ratio", "whole"}
