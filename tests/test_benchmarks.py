"""The benchmarks: what keeps their results, their arithmetic, and each of them, small, as a user calls it."""

import argparse
import json
import re
import shlex
import subprocess
import sys

import pytest

from benchmarks import fit, gpu, lengths, runner, scale
from benchmarks.ground_truth import of_length
from tests.conftest import REPO, SMALL, SMALL_SPACES, set_flags
from tests.data.samples import write_class_folders
from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.errors import UsageError
from tvt_ray.judging.truth import read_ground_truth
from tvt_ray.planning.recipe import look_at
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.vits.budget import Budget, Limits


def bench(name, *flags, out):
    """`python -m benchmarks`: the JSON object that it ends with."""
    command = [sys.executable, "-m", "benchmarks", name, *map(str, flags), "--out", str(out)]
    done = subprocess.run(command, check=False, cwd=REPO, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_was_measured_is_not_measured_again(tmp_path):
    record, calls = runner.Record("1234567", tmp_path / "here"), []
    for _ in range(2):
        assert record.once("part", lambda *args: calls.append(args) or {"first_ms": 1.5}, 1, 2) == {"first_ms": 1.5}
    assert calls == [(1, 2)]
    assert record.find("other") is None


def test_other_flags_and_another_config_are_another_measurement(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("seed: 1\n")
    given = {"num_samples": 3, "searcher": "random", "config": str(config)}

    def settings(**changed):
        return runner.settings_of(argparse.Namespace(**{**given, "seeds": 1, "out": tmp_path, **changed}))

    assert settings() == settings(seeds=3, out=tmp_path / "elsewhere") != settings(num_samples=4)
    assert settings(files=[tmp_path / "a", 1.5])["files"] == [str(tmp_path / "a"), 1.5]  # as JSON has it
    before = settings()
    config.write_text("seed: 2\n")
    assert settings() != before


def test_every_benchmark_has_flags_and_tells_of_itself():
    for name in runner.BENCHMARKS:
        assert runner.summary_of(name).endswith((".", "?"))
        assert f"python -m benchmarks {name}" in runner.build_parser(name).format_help()


def test_what_the_docs_say_to_run_can_be_run():
    pages = [REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")]
    text = "".join(page.read_text() for page in pages).replace("\\\n", " ")
    commands = re.findall(r"^python -m benchmarks (\w+)(.*)$", text, re.MULTILINE)
    assert {name for name, _ in commands} == set(runner.BENCHMARKS)
    for name, flags in commands:
        runner.build_parser(name).parse_args(shlex.split(flags))


@pytest.mark.parametrize("words", [["fast"], [], ["scorer", "--cases", "digits,letters"], ["scorer", "--device"]])
def test_wrong_usage_is_one_line(words, tmp_path, capsys):
    try:
        code = runner.main([*words, *(["--out", str(tmp_path)] if len(words) > 1 else [])])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_means_have_a_standard_error_where_there_are_several():
    assert fit.mean_and_error([70.0, 74.0]) == (72, 2)
    assert fit.mean_and_error([70.0]) == (70, None)


def test_the_drivers_cost_is_of_the_rows_between_two_marks():
    mark, cost_ms = scale.Mark, scale.cost_ms
    marks = [mark(0, 1.0, 0.0, 0), mark(64, 1.1, 0.002, 0), mark(100, 1.3, 0.006, 0), mark(164, 9.0, 9.0, 0)]
    assert cost_ms(marks, 0, 100) == pytest.approx((3.0, 3.0))
    assert cost_ms(marks, 70, 100) == pytest.approx((200 / 36, 4.0))
    assert scale.yardstick() > 0


@pytest.mark.night
def test_what_a_gpu_is_asked_is_asked_of_a_processor(tmp_path):
    flags = ["--device", "cpu", "--cases", "digits", "--num-images", "4", "--num-archs", "1", "--actors", "1,2"]
    result = bench("gpu", *SMALL, *flags, "--seconds", "1", "--steps", 2, out=tmp_path)
    assert result["device"].startswith("CPU")
    assert set(result["parity digits"].values()) == {0.0}  # it is the same device
    assert result["actors digits"]["1"] > 0 < result["reading digits"]["seconds_per_arch"]
    assert (result["memory digits"], result["two"]["sum"], result["wrong"]) == (None, 3.0, [])
    assert min(result["training"]["cohort"], result["precisions"]["images_per_s"]["auto"]) > 0
    assert 0 < result["single calls"]["1"] < result["single calls"]["64"]


def test_what_is_wrong_with_a_gpu_is_named():
    parts = {"parity digits": {"l2_norm": 1e-6, "snip": 0.2}, "memory digits": {"off": 0.5}}
    found = gpu.wrong({**parts, "two": {"agree": False, "sum": 1.0}})
    assert [each.split(":")[0] for each in found] == ["parity digits", "memory digits", "two"]
    assert "snip is off by 0.2" in found[0]
    assert gpu.wrong({"parity digits": {"l2_norm": 1e-6}, "memory digits": None, "two": None}) == []
    assert gpu.wrong({"parity digits": {"l2_norm": float("nan")}, "two": None})


@pytest.mark.night
@pytest.mark.ray
def test_a_driver_takes_what_a_crowd_of_workers_reads(tmp_path):
    flags = ["--num-workers", 20, "--num-samples", 3000, "--seconds-each", 0.01]
    result = bench("crowd", *flags, out=tmp_path)
    assert 0 < result["archs_per_s"] <= result["offered_per_s"] == 2000
    assert result["driver_ms"] > 0


@pytest.mark.night
def test_ground_truth_is_made_kept_and_gone_on_with(teacher, tmp_path):
    """Two cohorts in two processes; called again, the one that is there is not trained anew."""
    recipe = ["--set", "distill.epochs=1", "--set", "distill.batch_size=32", "--num-images", "96"]
    make = [*SMALL, "--num-archs", "8", "--cohort-size", "4", "--workers", "2", "--column", "digits", *recipe]
    made = bench("ground_truth", *make, out=tmp_path)
    (folder,) = (tmp_path / "ground_truth").iterdir()
    lines = [json.loads(line) for line in (folder / "ground_truth.jsonl").read_text().splitlines()]
    assert made["num_archs"] == len({json.dumps(line["arch"]) for line in lines}) == 8
    accuracies = [line["digits_kd_acc"] for line in lines]
    assert 0 <= min(accuracies) < max(accuracies) <= 100
    (folder / "cohort1.json").unlink()
    (folder / "cohort0.pt").write_bytes(b"not read again")
    assert bench("ground_truth", *make, out=tmp_path) == made
    assert [json.loads(line) for line in (folder / "ground_truth.jsonl").read_text().splitlines()] == lines


@pytest.mark.night
@pytest.mark.ray
def test_a_search_survives_a_node_and_uses_the_one_that_joins(teacher, tmp_path):
    """Head and two nodes, each with its own raylet; one of them is killed and another joins."""
    result = bench("chaos", "--runs", "1", "--num-samples", "400", "--num-checked", "10", out=tmp_path)
    harm = {"rows_lost": 0, "duplicates": 0, "wrong_scores": 0}
    assert result == {"benchmark": "chaos", "commit": result["commit"], "runs": 1, **harm, "added_nodes_used": 1}


@pytest.mark.night
def test_scoring_is_timed_beside_matrix_products(tmp_path):
    flags = ["--cases", "digits", "--num-archs", "1", "--num-images", "4"]
    result = bench("scorer", *flags, "--precision", "float32,bfloat16", out=tmp_path)
    assert result["gemm_share"].keys() == {"digits", "digits-bfloat16"}
    assert all(0 < share < 1 for share in result["gemm_share"].values())


@pytest.mark.night
@pytest.mark.ray
def test_the_drivers_cost_and_what_ray_costs_are_measured_on_searches(teacher, tmp_path):
    flags = ["--num-samples", "300", "--archs-per-trial", "8", "--cases", "digits", "--num-scored", "60"]
    result = bench("scale", *flags, "--num-images", "4", out=tmp_path)
    assert result["first_ms"] > 0 < result["last_ms"]
    assert {"growth", "rss_growth_mib"} < result.keys()
    assert result["efficiency"]["digits"] > 0
    assert result["num_pids"] == {"digits": 2}


@pytest.mark.night
@pytest.mark.ray
def test_distillation_is_timed_beside_a_plain_loop_timm_and_two_workers(tmp_path):
    result = bench("distill", *SMALL, "--steps", 2, "--short-epochs", 8, out=tmp_path)
    ratios = ["speed_ratio", "timm_ratio", "scaling_2_workers", "cohort_ratio", "job_ratio"]
    assert all(result[name] > 0 for name in ratios)
    assert 0 <= result["data_wait_share"] < 1


@pytest.mark.night
def test_students_of_a_fit_s_space_are_trained_as_a_fit_trains_its_own(tmp_path):
    """With the config that a fit writes, of a small space: two students, one of them twice, and the rivals."""
    photos = write_class_folders(tmp_path / "photos", ["ants", "bees"], 12)
    config = look_at({"data": {"name": f"imagefolder:{photos}"}}, all_cuts=True).config
    quick = {"epochs": 4, "stem_frozen_epochs": 2, "num_views": 2, "warmup_epochs": 1}
    config = config.with_(space={"embed_dim": [96], "depth": [1, 2], "mlp_ratio": [2]}, distill=quick)
    fitted = RunFolder(tmp_path / "fit")
    fitted.make()
    fitted.claim(config.with_(space={"stem": ["stage5"]}).resolved())
    flags = ["--fit", fitted.path, "--num-archs", 2, "--again", 1, "--cohort-size", 4, "--column", "photos"]
    file = tmp_path / "students.jsonl"
    flags += ["--epochs", 2, "--file", file]
    made = bench("students", *flags, out=tmp_path)
    roles, seed = [each["role"] for each in made["trainings"]], config.distill.seed
    assert roles == ["", "", *["without blocks"] * len(config.space.stem), "middle", "largest", ""]
    assert {each["epochs"] for each in made["trainings"]} == {2}
    assert [each["seed"] for each in made["trainings"]] == [*[seed] * (len(roles) - 1), seed + 1]
    assert made["trainings"][-1]["arch"] == made["trainings"][0]["arch"]
    truth = read_ground_truth(file, load_config(file.with_suffix(".yaml")).space, 2)
    assert [len(each.entries) for each in truth] == [2]
    assert bench("students", *flags, out=tmp_path) == made
    half = json.loads(file.with_suffix(".json").read_text())[:4]  # as a call that was killed left it
    file.with_suffix(".json").write_text(json.dumps(half))
    assert bench("students", *flags, out=tmp_path) == made
    assert str(tmp_path) not in file.with_suffix(".yaml").read_text()
    more = [
        "--dataset",
        photos,
        "--config",
        file.with_suffix(".yaml"),
        "--num-archs",
        3,
        "--again",
        1,
        "--column",
        "photos",
        "--file",
        file,
    ]
    grown = bench("students", *more, out=tmp_path / "elsewhere")
    assert [each for each in grown["trainings"] if each in made["trainings"]] == made["trainings"]
    assert len(grown["trainings"]) == len(made["trainings"]) + 1
    assert len(file.read_text().splitlines()) == 3


def trained(depth, epochs, seed, test_acc, val_acc):
    return {"depth": depth, "epochs": epochs, "seed": seed, "test_acc": test_acc, "val_acc": val_acc}


def test_an_order_that_turns_with_the_length_of_training_is_seen():
    """Wide wins the short one, deep the long one, whose first tenth says the opposite of its end."""
    trainings = []
    for depth, short, long in ((2, 60, 70), (4, 50, 80), (8, 40, 90)):
        for seed, luck in ((0, -1), (1, 1)):
            trainings.append(trained(depth, 1, seed, short + luck, [short + luck]))
            trainings.append(trained(depth, 10, seed, long + luck, [short, *[50] * 4, *[long] * 5]))
    found = lengths.judge(trainings)
    assert found["1"]["test_acc"] == {"2": 60, "4": 50, "8": 40}
    assert found["1"]["points_per_doubling"] == pytest.approx(-10)
    assert found["10"]["points_per_doubling_ci95"] == pytest.approx([10, 10])
    assert (found["1"]["tau_with_longest"], found["10"]["tau_with_longest"]) == (-1, 1)
    assert (found["1"]["tau_with_depth"], found["10"]["tau_with_depth"]) == (-1, 1)
    assert found["10"]["parts"] == {"0.10": -1, "0.33": None, "0.67": 1}


def test_students_of_one_size_are_one_of_each_depth():
    space = SMALL_SPACES["vit"].with_({"embed_dim": [24, 36, 48], "depth": [1, 2, 3, 4], "head_dim": [12]})
    sizes = {space.cost(arch, 10).params for arch in space.enumerate()}
    budget = Budget(min_params=min(sizes), max_params=max(sizes))
    archs = lengths.one_of_each_depth(Limits(space, budget, 10))
    assert [arch.depth for arch in archs] == [1, 2, 3, 4]
    assert archs[-1].embed_dim < archs[0].embed_dim == 48
    with pytest.raises(UsageError, match="min_params and max_params"):
        lengths.one_of_each_depth(Limits(space, Budget(), 10))
    with pytest.raises(UsageError, match="students of 1 depths; at least 3"):
        lengths.one_of_each_depth(Limits(space, Budget(min_params=max(sizes), max_params=max(sizes)), 10))


def test_a_recipe_of_another_length_keeps_its_shares():
    settings = DistillSettings(epochs=60, warmup_epochs=6, stem_frozen_epochs=45)
    shorter = of_length(settings, 20)
    assert (shorter.epochs, shorter.warmup_epochs, shorter.stem_frozen_epochs) == (20, 2, 15)
    assert of_length(settings, 4).warmup_epochs == 1
    assert of_length(settings.with_(stem_frozen_epochs=0), 4).stem_frozen_epochs == 0


@pytest.mark.night
def test_students_of_one_size_are_trained_in_every_length(teacher, tmp_path):
    space = {"depth": [1, 2, 3], "embed_dim": [24, 36], "num_heads": [2], "mlp_ratio": [2.0]}
    flags = [*SMALL, *set_flags({"space": space, "budget": {"min_params": 1000, "max_params": 100_000}})]
    flags += ["--lengths", 1, 2, "--seeds", 2, "--workers", 2]
    found = bench("lengths", *flags, out=tmp_path)
    assert found["lengths"].keys() == {"1", "2"}
    assert found["lengths"]["2"]["test_acc"].keys() == {"1", "2", "3"}
    assert bench("lengths", *flags, out=tmp_path) == found
