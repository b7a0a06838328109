"""tvt evaluate, with a student that learned the digits."""

import json
import random
import re
import shlex

import pytest
from safetensors.torch import save

from tests.conftest import REPO, SMALL_SPACES, call
from tests.data.samples import write_class_folders
from tvt_ray.cli.main import build_parser
from tvt_ray.exports.folder import StudentCard, save_student
from tvt_ray.vits import build_student

SPACE = SMALL_SPACES["autoformer"]
CONTRACT = (
    "student dataset split num_images top1 top1_ci95 balanced_accuracy majority ece nll classes confusion page file"
)


@pytest.fixture
def ants_or_bees(tmp_path):
    """A student of random weights."""
    arch = SPACE.sample(random.Random(0))
    card = StudentCard(SPACE, arch, ("ants", "bees"), {})
    save_student(tmp_path / "student", card, save(build_student(SPACE, arch, 2, seed=0).state_dict()), [])
    return tmp_path / "student"


def test_json_is_the_last_line_and_the_file(capsys, digits_student, tmp_path):
    code, out, err = call(capsys, "evaluate", digits_student, "--out", tmp_path / "e", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found.keys() >= set(CONTRACT.split())
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text()) == found
    assert found["page"] == str(tmp_path / "e" / "evaluation.html")
    assert found["num_images"] == 359
    assert found["top1_ci95"][0] < found["top1"] < found["top1_ci95"][1]
    assert sum(map(sum, found["confusion"])) == 359
    trace = sum(found["confusion"][i][i] for i in range(10))
    assert found["top1"] == round(100 * trace / 359, 4)


def test_figures_are_printed_with_the_majority_beside_them(capsys, digits_student, tmp_path):
    code, out, _ = call(capsys, "evaluate", digits_student, "--out", tmp_path / "e", "--dataset", "digits")
    assert code == 0
    assert out.startswith("digits, test: 359 images\n")
    assert "always naming 3 is right for 10.31 %: better than that" in out
    for word in ("balanced ", "calibration ", "likelihood ", "confused ", "page ", "figures "):
        assert f"\n{word}" in out


def test_another_dataset_is_named_with_its_settings(capsys, ants_or_bees, tmp_path):
    write_class_folders(tmp_path / "d", ["bees", "ants"], 10)
    flags = ["--dataset", f"imagefolder:{tmp_path / 'd'}", "--set", "data.test_fraction=0.5", "--json"]
    code, out, err = call(capsys, "evaluate", ants_or_bees, *flags)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["num_images"] == 10
    assert "note: the split test is carved: 50% of the images" in err


def test_what_the_page_says_to_run_can_be_run():
    commands = re.findall(r"^tvt (.*)$", (REPO / "docs" / "evaluate.md").read_text(), re.MULTILINE)
    assert [build_parser().parse_args(shlex.split(line)).split for line in commands] == ["test", "all"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "digits", "--split", "dev"], "unknown split 'dev'; choices: train, val, test, all"),
        (["--dataset", "digits"], "it does not know 0, 1, 2, 3, 4, 5, 6, 7 and 2 more: it knows ants, bees"),
        ([], "--dataset says what to evaluate on"),
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--dataset", "digits", "--set", "data.split_sed=1"], "did you mean 'data.split_seed'"),
    ],
)
def test_wrong_usage_is_one_line(flags, message, capsys, ants_or_bees):
    code, out, err = call(capsys, "evaluate", ants_or_bees, *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_folder_that_holds_no_student_is_refused(capsys, tmp_path):
    code, _, err = call(capsys, "evaluate", tmp_path, "--dataset", "digits")
    assert (code, err) == (2, f"error: {tmp_path} holds no trained student: there is no arch.json\n")
