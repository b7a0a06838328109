"""The files for people who carry on: that they parse, and say what the project does."""

import configparser
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

import tvt_ray
from tests.conftest import REPO
from tvt_ray.cli.main import build_parser
from tvt_ray.cli.options import overrides
from tvt_ray.runs.config import load_config

FORMS = sorted((REPO / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = REPO / ".github" / "workflows"
PAGES = [*sorted(REPO.glob("*.md")), *sorted((REPO / "docs").glob("*.md"))]
DESIGN = (REPO / "docs" / "design.md").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(REPO / "setup.cfg")


def make_commands():
    """What `make check` runs, without where."""
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (REPO / "Makefile").read_text(), re.MULTILINE)[1]
    return [line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in recipe.splitlines()]


def recipe_of(target):
    """What make would run for a target, a line each."""
    command = ["make", "--dry-run", "--no-print-directory", "--always-make", target, "OTHER_PYTHON=python9"]
    done = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_the_workflow_runs_what_the_gate_runs():
    gate = [line for line in (REPO / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    job = yaml.safe_load((WORKFLOWS / "checks.yml").read_text())["jobs"]["checks"]
    assert [step["run"] for step in job["steps"] if "run" in step] == gate == ["make check", "make test"]


def test_every_night_every_test_runs_on_every_python_that_is_supported():
    workflow = yaml.safe_load((WORKFLOWS / "nightly.yml").read_text())
    assert workflow["on"]["schedule"]
    job = workflow["jobs"]["tests"]
    installed, tested = [step["run"] for step in job["steps"] if "run" in step]
    assert installed.endswith("apt-get install --yes prometheus")  # which a test skips without
    assert tested == "make test-all"
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert SETUP["options"]["python_requires"] == ">=3.11"


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_actions_are_named_by_their_commit_and_have_no_rights_but_to_read(path):
    """A tag can be moved to other code."""
    text = path.read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in used)
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_nodes_of_a_cluster_get_pinned_tools_and_guarded_credentials():
    for name in ("cluster.yaml", "cluster-onprem.yaml"):
        installers = re.findall(r"https://\S+install\S*", (REPO / name).read_text())
        assert all(re.search(r"/\d+\.\d+\.\d+/", each) for each in installers)
    nodes = yaml.safe_load((REPO / "cluster.yaml").read_text())["available_node_types"]
    assert all(each["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for each in nodes.values())


@pytest.mark.skipif(shutil.which("make") is None, reason="asks make")
def test_what_leaves_the_gate_is_in_test_all():
    """It runs every test with this Python and with another, and those of the cluster with the lowest Ray."""
    gate, everything = ([line for line in recipe_of(name) if "pytest" in line] for name in ("test", "test-all"))
    assert [shlex.split(line)[-2:] for line in gate] == [["-m", "not night"]]
    here, lowest, other = map(shlex.split, everything)
    assert here == shlex.split(gate[0])[:-2]
    assert lowest == [".venv-lowest/bin/python", "-m", "pytest", "tests/cluster"]
    assert other == [".venv-other/bin/python", *here[1:]]


def test_pre_commit_runs_what_make_check_runs_with_the_tools_of_the_environment():
    (repo,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    entries = [hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in repo["hooks"]]
    assert entries == make_commands()


def test_an_installed_package_has_every_file_of_its_own():
    patterns = SETUP["options.package_data"]["tvt_ray"].split(", ")
    files = {path for path in (REPO / "tvt_ray").rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == {path for pattern in patterns for path in (REPO / "tvt_ray").glob(pattern)}


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}  # what the format demands
    assert str(citation["version"]) == tvt_ray.__version__ == SETUP["metadata"]["version"]
    assert citation["license"] == SETUP["metadata"]["license"]
    assert [reference["url"] for reference in citation["references"]] == ["https://arxiv.org/abs/2311.14337"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_what_github_can_show(path):
    form = yaml.safe_load(path.read_text())
    assert form.keys() >= {"name", "description", "body"}
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    for part in form["body"]:
        assert part["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["label"]
        assert (part["type"] in ("dropdown", "checkboxes")) == ("options" in part["attributes"])


def test_both_issue_forms_are_there():
    assert [path.stem for path in FORMS] == ["bug_report", "feature_request"]


def test_the_changelog_has_the_form_that_it_names():
    titles = re.findall(r"^## (.*)$", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    assert titles[1] == f"[{tvt_ray.__version__}]"
    kinds = set(re.findall(r"^### (.*)$", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_of_a_page_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" not in target:
            page = path.parent / file if file else path
            assert page.exists(), target
            titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE) if anchor else []
            anchors = [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]
            assert not anchor or anchor in anchors, target


def test_the_layout_in_the_design_is_that_of_the_package():
    entries = {path.name for path in (REPO / "tvt_ray").iterdir() if not path.name.startswith("__pycache__")}
    layout = DESIGN.split("## Layout")[1].split("```")[1]
    listed = set(re.findall(r"^  ([\w.]+/?)", layout, re.MULTILINE)) | set(re.findall(r"(\w+\.py)\b", layout))
    assert {name for name in entries if "." not in name} == {name[:-1] for name in listed if name.endswith("/")}
    assert {name for name in entries if name.endswith(".py")} <= listed


def test_the_import_order_in_the_design_is_the_one_that_is_held():
    contract = SETUP["importlinter:contract:layers"]["layers"].split("\n")
    held = [[room.strip() for room in layer.split("|")] for layer in contract if layer.strip()]
    told = re.search(r"^    __main__.*?errors$", DESIGN, re.MULTILINE | re.DOTALL)[0]
    assert [[room.strip() for room in layer.split("|")] for layer in told.split("→")] == held


def test_what_contributing_says_to_run_can_be_run():
    text = (REPO / "CONTRIBUTING.md").read_text()
    targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([\w-]+)", text)) <= set(targets)
    commands = re.findall(r"^tvt ((?:.*\\\n)*.*)", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["rank"]
    for command in commands:
        args = build_parser().parse_args(shlex.split(command.replace("\\\n", " ")))
        load_config(args.config and REPO / args.config, [overrides(args)])
    files = re.findall(r"`((?:tests|docs|tvt_ray|\.github|\.ci)/[\w./-]*)`", text)
    assert len(files) > 5
    assert [file for file in files if not (REPO / file).exists()] == []
