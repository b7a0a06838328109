"""The command line: what each command prints, and what wrong usage gets."""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import tvt_ray
from tests.conftest import REPO, SMALL, SMALL_SPACES, TEACHER, call, set_flags
from tests.data.samples import write_class_folders
from tvt_ray.cli.main import build_parser
from tvt_ray.cli.options import asked_now, overrides
from tvt_ray.errors import UsageError
from tvt_ray.planning.recipe import Speeds
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.teachers.provide import save_teacher


@pytest.fixture
def weights(teacher, tmp_path):
    save_teacher(teacher, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "probe.num_imges=3"], "did you mean 'probe.num_images'"),
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--dataset", "imagefolder:/no/such"], "there is no /no/such"),
        (["--searcher", "anneal"], "choices: random, exhaustive, evolution, tpe, nsga2"),
        (["--score", "accuracy"], "choices: capacity, tvt, params"),
        (["--teacher", "resnet57"], "did you mean 'resnet56'"),
        (["--teacher-weights", "/no/such"], "there is no file /no/such"),
        (["--max-params", "10k"], "the smallest has 114,698"),
        (["--min-params", "9M"], "the largest has 1,218,186"),
        (["--min-params", "130000", "--max-params", "130001"], "no architecture was found within the budget"),
        (["--max-flops", "fast"], "6M or 1.5G"),
        (["--num-samples", "0"], "argument --num-samples: at least 1; got 0"),
        (["--num-samples", "many"], "a whole number of at least 1; got 'many'"),
        (["--resume"], "--resume needs --run-dir"),
        (["--resume", "--run-dir", "/no/such"], "holds no run"),
        (["--run-dir", "ftp://host/run"], "s3://, gs://, abfs://, hdfs:// and file:/// are read"),
        (["--config", "/no/such.yaml"], "no config file"),
        (["--num-sample", "4"], "unrecognized arguments"),
        (["--distill-top-k", "0"], "at least 1"),
        (["--set", "probe.num_images=5000"], "only 1294 training images"),
        (["--readings", "some"], "config score.readings: Input should be 'full' or 'score'"),
        (["--ray-address", "127.0.0.1:1"], "127.0.0.1:1 does not answer"),
        (["--ray-address", "ray://127.0.0.1:10001"], "Ray Client (ray://127.0.0.1:10001) cannot run a search"),
        (["--ray-address", "head:port"], "a Ray address is HOST:PORT, auto or local; got 'head:port'"),
        (["--set", "plugins=[no_such_module]"], "plugin 'no_such_module' cannot be imported"),
        (["--teacher", "timm:resnet19"], "timm has no model 'resnet19'; near: "),
        (["--distill-top-k", "1", "--set", "distill.augment.auto_augment=rand-x9"], "distill.augment.auto_augment"),
        (
            ["--set", "teacher_training.augment.auto_augment=rand-x9"],
            "teacher_training.augment.auto_augment: timm",
        ),
    ],
)
def test_wrong_search_flags(flags, message, capsys, tmp_path, monkeypatch):
    """Before a teacher is trained."""
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "search", *set_flags(TEACHER), *flags)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_wrong_data_names_the_file(capsys, tmp_path):
    write_class_folders(tmp_path, ["a", "b"], 12)
    (tmp_path / "b" / "5.png").write_bytes(b"no picture")
    code, _, err = call(capsys, "search", "--dataset", f"imagefolder:{tmp_path}")
    assert (code, err.count("\n")) == (2, 1)
    assert "b/5.png" in err
    (tmp_path / "c").mkdir()
    code, _, err = call(capsys, "check-data", "--dataset", f"imagefolder:{tmp_path}")
    assert (code, err.count("\n")) == (2, 1)
    assert "class folder(s) c" in err


def test_a_teacher_of_other_classes(capsys, tmp_path, weights):
    write_class_folders(tmp_path / "d", ["a", "b"], 12)
    code, _, err = call(capsys, "search", "--dataset", f"imagefolder:{tmp_path / 'd'}", "--teacher-weights", weights)
    assert code == 2
    assert "knows 10 classes, the dataset has 2" in err.splitlines()[-1]


def test_score_prints_the_contract(capsys, tmp_path, weights):
    space = SMALL_SPACES["autoformer"]
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
        assert result["components"].keys() == {"attention_similarity", "l2_norm", "rank_sum", "log_norm"}
        results.append(result)
    assert results[0] == results[1]
    (tmp_path / "x.json").write_text('{"embed_dim": 25}')
    code, _, err = call(capsys, "score", "--arch", tmp_path / "x.json", "--teacher-weights", weights, *SMALL)
    assert (code, err.count("\n")) == (2, 1)


def test_dry_run_says_what_would_run_and_writes_nothing(capsys, tmp_path, monkeypatch, teacher):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "search", *SMALL, "--dry-run", "--json", "--max-params", "20k", "--num-samples", "40")
    plan = json.loads(out.splitlines()[-1])
    space = SMALL_SPACES["autoformer"]
    fitting = sum(space.cost(arch, 10).params <= 20_000 for arch in space.enumerate())
    assert code == 0
    assert plan["space_size"] == space.size()
    assert plan["budget_share"] == fitting / space.size()
    assert plan["num_samples"] == min(40, fitting)
    assert plan["estimated_s"] > 0
    assert not plan["teacher_would_be_trained"]
    assert list(tmp_path.iterdir()) == []
    assert plan["seconds"].keys() == {"search", "start"}


@pytest.mark.slow
def test_dry_run_counts_every_phase(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = set_flags({"teacher_training": {"epochs": 7, "batch_size": 32}, "distill": {"batch_size": 16}})
    asked = [*SMALL, *small, "--refine", "4", "--distill-top-k", "2"]
    code, out, _ = call(capsys, "search", "--dry-run", "--json", *asked)
    plan = json.loads(out.splitlines()[-1])
    assert code == 0
    assert plan["teacher_would_be_trained"]
    assert (plan["num_refined"], plan["num_distilled"]) == (4, 2)
    assert plan["seconds"].keys() == {"teacher", "search", "refine", "distill", "start"}
    assert plan["estimated_s"] == pytest.approx(sum(plan["seconds"].values()), abs=0.3)
    monkeypatch.setattr("tvt_ray.planning.estimate.measure_speeds", lambda *asked: Speeds(0.01, 0.02, 0.03))
    code, out, _ = call(capsys, "search", "--dry-run", *asked)
    assert "which would be trained first" in out
    assert "refine    4 students" in out


@pytest.mark.slow
def test_teacher_train_and_eval(capsys, tmp_path):
    out_file = tmp_path / "t.safetensors"
    small = set_flags(TEACHER)
    code, out, _ = call(capsys, "teacher", "train", *small, "--epochs", "1", "--out", out_file, "--json")
    trained = json.loads(out.splitlines()[-1])
    assert code == 0
    code, out, _ = call(capsys, "teacher", "eval", *small, "--teacher-weights", out_file, "--json")
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


def test_version_and_module():
    done = subprocess.run(
        [sys.executable, "-m", "tvt_ray", "--version"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"tvt_ray {tvt_ray.__version__}\n"


def test_help_lists_the_rows_of_the_tables(capsys):
    _, out, _ = call(capsys, "search", "--help")
    words = " ".join(out.split())
    for name in ("imagefolder:PATH", "timm:NAME", "nsga2", "capacity, tvt, params"):
        assert name in words


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["fit", "photos", "--out", "here", "--minutes=-1"],
        ["search", "--num-samples", "0"],
        ["distill", "--run-dir", "here", "--top-k", "few"],
    ],
    ids=" ".join,
)
def test_help_and_numbers_that_cannot_be_are_told_before_torch_and_ray_are_imported(words):
    code = f"import sys; from tvt_ray.cli.main import main\ntry: main({words})\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'ray', 'timm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stderr.splitlines()) == (words != ["--help"])


@pytest.fixture
def broken(monkeypatch):
    """A command that raises what nobody expects."""

    def raises(*args):
        raise ZeroDivisionError("what [/nobody] expected")

    monkeypatch.setattr("tvt_ray.verbs.check_data.describe_data", raises)


def test_what_nobody_expects_is_one_line_and_a_traceback_on_request(capsys, broken):
    code, out, err = call(capsys, "check-data")
    assert (code, out) == (1, "")
    assert err == (
        "error: not expected: ZeroDivisionError: what [/nobody] expected; "
        "--debug shows where, which belongs in a report of it\n"
    )
    code, _, err = call(capsys, "check-data", "--debug")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1] == "error: not expected: ZeroDivisionError: what [/nobody] expected"


@pytest.mark.slow
def test_a_closed_pipe_is_one_line(tmp_path):
    """As in `tvt check-data | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tvt_ray", "check-data"]
    done = subprocess.run(command, cwd=REPO, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: standard output was closed before all was written")
    assert "Traceback" not in done.stderr


def test_class_names_are_no_markup(capsys, tmp_path):
    write_class_folders(tmp_path, ["[", "[red]", "[bold"], 12)
    code, out, err = call(capsys, "check-data", "--dataset", f"imagefolder:{tmp_path}")
    assert code == 0, err
    assert "[red]" in out
    assert "[bold" in out


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    write_class_folders(tmp_path, ["猫", "犬"], 5)
    command = [sys.executable, "-m", "tvt_ray", "check-data", "--dataset", f"imagefolder:{tmp_path}"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=True)
    assert r"\u732b" in done.stdout


def test_paths_on_the_command_line_are_of_the_folder_that_one_is_in_and_know_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    parser, arch = build_parser(), ["--arch", "a.json"]
    args = parser.parse_args(["score", *arch, "--config", "~/c.yaml", "--teacher-weights", "~/w.safetensors"])
    assert (args.arch, args.config) == (tmp_path / "a.json", Path("/home/me/c.yaml"))
    assert load_config(None, [overrides(args)]).teacher.weights == Path("/home/me/w.safetensors")
    assert parser.parse_args(["teacher", "train", "--out", "t.safetensors"]).out == tmp_path / "t.safetensors"
    assert parser.parse_args(["check-data", "--out", "~/sheet"]).out == Path("/home/me/sheet")
    args = parser.parse_args(["rank", "--ground-truth", "a", "~/b", "--out", "o"])
    assert (args.ground_truth, args.out) == ([tmp_path / "a", Path("/home/me/b")], tmp_path / "o")


def test_a_folder_without_a_home_works(tmp_path):
    """An unknown user in a container has neither HOME nor an entry in the password file."""
    code = "from tvt_ray.storage.locations import cache_folder; print(cache_folder())"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    script = (
        f"import pathlib\ndef home(cls): raise RuntimeError('no home')\npathlib.Path.home = classmethod(home)\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("tvt_ray")


def test_paths_that_cannot_be_written_are_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    out_file = tmp_path / "file" / "teacher.safetensors"
    code, _, err = call(capsys, "teacher", "train", "--out", out_file)
    assert (code, err.count("\n")) == (2, 1)
    assert "teacher.safetensors cannot be written" in err
    code, _, err = call(capsys, "search", *SMALL, "--run-dir", tmp_path / "file" / "run")
    assert code == 2
    assert "file/run cannot be written to: " in err.splitlines()[-1]
    code, _, err = call(capsys, "search", *SMALL, "--run-dir", tmp_path / "file" / "run", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "words", [["fit", "{}", "--out", "out"], ["search", "--dataset", "{}"], ["check-data", "{}"]], ids=lambda w: w[0]
)
def test_a_folder_that_is_laid_out_otherwise_is_told_before_torch_is_imported(words, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "notes.txt").write_text("")
    words = [word.format(tmp_path / "photos") for word in words]
    code = "import sys\nfrom tvt_ray.cli.main import main\ncode = main(sys.argv[1:])\n"
    code += "sys.exit(code + 10 * sum(name in sys.modules for name in ('torch', 'ray', 'timm')))"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "no images in the class folder(s) a, b (but a/notes.txt)" in done.stderr


def test_a_run_that_was_begun_says_itself_how_its_images_are_laid_out(tmp_path, monkeypatch):
    """Its labels are of a table that the command which goes on does not name."""
    (tmp_path / "photos").mkdir()
    run = RunFolder(tmp_path / "run")
    args = argparse.Namespace(set=[], dataset=f"imagefolder:{tmp_path / 'photos'}", run_dir=run.path)
    with pytest.raises(UsageError):
        asked_now(args)
    run.make()
    run.claim(RunConfig())
    assert asked_now(args)["data"]["name"] == args.dataset


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "imagefolder:{}", "--out", "out"],
        ["fit", "digits", "--out", "{}"],
        ["search", "--run-dir", "{}"],
        ["search", "--config", "{}"],
        ["report", "{}"],
        ["inspect", "{}"],
        ["predict", "{}", "image.png"],
        ["check-data", "parquet:{}"],
        ["search", "--teacher-weights", "{}", "--run-dir", "out"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["n" * 300, "n/" * 3000], ids=["name", "path"])
def test_a_name_that_no_filesystem_takes_is_one_line(words, name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *(word.format(name) for word in words))
    assert code == 2
    assert err.count("\n") == 1
    assert len(err) < 300
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_too_long_for_sockets_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 60)))
    code, _, err = call(capsys, "search", *SMALL, "--run-dir", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "set RAY_TMPDIR to a shorter one" in err
    assert not (tmp_path / "run").exists()
