"""The command line without Ray: one line and exit code 2 for what is wrong, and the commands that need no cluster."""

import json
import random

import pytest
from PIL import Image

from tests.conftest import SMALL_SPACES, TEACHER, set_flags
from tvt_ray.cli import main
from tvt_ray.space import as_space

SMALL = [
    *("--set", f"space={json.dumps(SMALL_SPACES['autoformer'].model_dump(mode='json'))}"),
    *set_flags({**TEACHER, "score": {"calibration_samples": 8}, "probe": {"num_images": 10}}),
]


def call(capsys, *argv):
    """(exit code, standard output, standard error)"""
    try:
        code = main([str(part) for part in argv])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def weights(teacher, tmp_path):
    from tvt_ray.distill.teacher import save_teacher

    save_teacher(teacher, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "probe.num_imges=3"], "did you mean 'probe.num_images'"),
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--dataset", "imagefolder:/no/such"], "there is no /no/such"),
        (["--searcher", "anneal"], "'random', 'exhaustive'"),
        (["--score", "accuracy"], "choices: tvt"),
        (["--teacher", "resnet57"], "did you mean 'resnet56'"),
        (["--teacher-weights", "/no/such"], "there is no file /no/such"),
        (["--max-params", "10k"], "the smallest has 114,698"),
        (["--min-params", "9M"], "the largest has 1,218,186"),
        (["--min-params", "130000", "--max-params", "130001"], "no architecture was found within the budget"),
        (["--max-flops", "fast"], "6M or 1.5G"),
        (["--num-samples", "0"], "greater than 0"),
        (["--num-samples", "many"], "invalid int value"),
        (["--resume"], "--resume needs --run-dir"),
        (["--resume", "--run-dir", "/no/such"], "holds no run"),
        (["--run-dir", "ftp://host/run"], "s3://, gs://, abfs://, hdfs:// and file:/// are read"),
        (["--config", "/no/such.yaml"], "no config file"),
        (["--num-sample", "4"], "unrecognized arguments"),
        (["--distill-top-k", "0"], "at least 1"),
        (["--set", "probe.num_images=5000"], "only 1294 training images"),
    ],
)
def test_wrong_search_flags(flags, message, capsys, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "search", *set_flags(TEACHER), *flags)
    lines = [line for line in err.splitlines() if not line.startswith("teacher:")]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "runs").exists()


def test_wrong_data_names_the_file(capsys, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(12):
            Image.new("RGB", (9, 9), (i, 7, 9)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "b" / "5.png").write_bytes(b"no picture")
    code, _, err = call(capsys, "search", "--dataset", f"imagefolder:{tmp_path}")
    assert (code, err.count("\n")) == (2, 1)
    assert "b/5.png" in err
    (tmp_path / "c").mkdir()
    code, _, err = call(capsys, "check-data", "--dataset", f"imagefolder:{tmp_path}")
    assert (code, err.count("\n")) == (2, 1)
    assert "class folder(s) c" in err


def test_a_teacher_of_other_classes(capsys, tmp_path, weights):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (9, 9), (i, 7, 9)).save(tmp_path / "d" / name / f"{i}.png")
    code, _, err = call(capsys, "search", "--dataset", f"imagefolder:{tmp_path / 'd'}", "--teacher-weights", weights)
    assert code == 2
    assert "knows 10 classes, the dataset has 2" in err.splitlines()[-1]


def test_score_prints_the_contract(capsys, tmp_path, weights):
    space = as_space(SMALL_SPACES["autoformer"])
    arch = space.sample(random.Random(0))
    results = []
    for number, entry in enumerate((space.to_json(arch), {"space": "autoformer", "arch": space.to_json(arch)})):
        (tmp_path / f"{number}.json").write_text(json.dumps(entry))
        flags = ["--arch", tmp_path / f"{number}.json", "--teacher-weights", weights, *SMALL, "--json"]
        code, out, _ = call(capsys, "score", *flags)
        result = json.loads(out.splitlines()[-1])
        assert code == 0
        assert result["arch_id"] == space.arch_id(arch)
        assert (result["params"], result["flops"]) == space.cost(arch, 10)
        assert result["components"].keys() == {"t", "s", "r", "log_norm"}
        results.append(result)
    assert results[0] == results[1]
    (tmp_path / "x.json").write_text('{"embed_dim": 25}')
    code, _, err = call(capsys, "score", "--arch", tmp_path / "x.json", "--teacher-weights", weights, *SMALL)
    assert (code, err.count("\n")) == (2, 1)


def test_dry_run_says_what_would_run_and_writes_nothing(capsys, tmp_path, monkeypatch, teacher):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "search", *SMALL, "--dry-run", "--json", "--max-params", "20k", "--num-samples", "40")
    plan = json.loads(out.splitlines()[-1])
    space = as_space(SMALL_SPACES["autoformer"])
    fitting = sum(space.cost(arch, 10).params <= 20_000 for arch in space.enumerate())
    assert code == 0
    assert plan["space_size"] == space.size()
    assert plan["budget_share"] == fitting / space.size()
    assert plan["num_samples"] == min(40, fitting)
    assert plan["estimated_s"] > 0
    assert not plan["teacher_would_be_trained"]
    assert list(tmp_path.iterdir()) == []
    code, out, _ = call(capsys, "search", "--dry-run", "--set", "teacher_training.epochs=7")
    assert "which would be trained first" in out


@pytest.mark.slow
def test_teacher_train_and_eval(capsys, tmp_path):
    out_file = tmp_path / "t.safetensors"
    code, out, _ = call(capsys, "teacher", "train", "--epochs", "1", "--out", out_file, "--json")
    trained = json.loads(out.splitlines()[-1])
    assert code == 0
    code, out, _ = call(capsys, "teacher", "eval", "--teacher-weights", out_file, "--json")
    evaluated = json.loads(out.splitlines()[-1])
    assert code == 0
    assert evaluated == {
        "teacher": "resnet20",
        "dataset": "digits",
        "split": "test",
        "num_images": 359,
        "top1": round(trained["test_acc"], 4),
    }
    code, _, err = call(capsys, "teacher", "eval", "--teacher-weights", out_file, "--split", "dev")
    assert (code, err) == (2, "error: unknown split 'dev'; choices: train, val, test\n")
    code, _, err = call(capsys, "teacher", "train", "--out", tmp_path / "t.pt")
    assert code == 2


def test_check_data_counts_images_by_class(capsys):
    code, out, _ = call(capsys, "check-data", "--json")
    described = json.loads(out)
    assert code == 0
    assert described["num_images"] == {"train": 1294, "val": 144, "test": 359}
    assert sum(counts["train"] for counts in described["classes"].values()) == 1294
