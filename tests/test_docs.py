"""The pages: what they name exists, and the reference of settings is what the code says."""

import argparse
import re
import runpy

import pytest

from tests.conftest import REPO
from tvt_ray.cli import distill, search
from tvt_ray.cli.main import build_parser, script_parser
from tvt_ray.cli.options import OPTIONS
from tvt_ray.distillation.losses import LOSSES
from tvt_ray.runs.config import RunConfig
from tvt_ray.vits import SPACES

MARKDOWN = [*sorted((REPO / "docs").glob("*.md")), REPO / "README.md", REPO / "CONTRIBUTING.md"]
COMMENTED = [*REPO.glob("cluster*.yaml"), *(REPO / "kuberay").iterdir()]
COMMENTED += [path for folder in ("configs", "benchmarks") for path in (REPO / folder).glob("*.yaml")]


def of_today(page):
    """Without what runs at an earlier commit alone: blocks that begin by checking it out, and benchmarks that left."""
    page = re.sub(r"^```\ngit checkout .*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^## Answered\n.*?(?=^## |\Z)", "", page, flags=re.MULTILINE | re.DOTALL)


PAGES = {str(path.relative_to(REPO)): of_today(path.read_text()) for path in MARKDOWN}
PAGES |= {str(path.relative_to(REPO)): "\n".join(re.findall(r"# ?(.*)", path.read_text())) for path in COMMENTED}

# CamelCase that others define: Ray, AWS and Kubernetes, timm and PyTorch; and names of networks.
OTHERS_NAMES = {
    *("TrainController", "RayTrainWorker", "RayJob", "SessionName", "NodeAddress", "WorkerId"),
    *("PassRole", "AvailabilityZone", "SpotPrice", "SpotPriceHistory", "ReadWriteMany"),
    *("LogitDistillationTask", "VisionTransformer", "ResNets", "ViTs", "CPUExecutionProvider"),
    *("SshFrom", "ExperimentPlateauStopper", "TimeoutStopper"),
}
OTHERS_PATHS = {"kuberay/kuberay-operator"}  # of Helm
OTHERS_FLAGS = {"num-cpus", "num-gpus", "working-dir"}  # of Ray
FLAG = r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])(?![\w-])"
COMMAND = r"""(?x)
    (?:python\ )?(?P<script>search|distill)\.py\b
    | \b(?:python\ -m\ tvt_ray|tvt)\ (?P<command>[a-z][\w-]*)
    | python\ (?:-m\ )?benchmarks[/ ](?P<benchmark>\w+)(?:\.py)?"""


def blocks_of(text, kind=r"\w*"):
    """The code blocks of a page, continued lines joined."""
    blocks = re.findall(rf"^ *```{kind}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*\\\n\s*", " ", block) for block in blocks]


def spans_of(text):
    """What stands between backticks, on a line or two."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def parsers():
    """Every command of the project, with its parser; `teacher train` stands for itself."""
    found = {"search.py": script_parser("", search.add), "distill.py": script_parser("", distill.add)}
    waiting = [("", build_parser())]
    while waiting:
        name, parser = waiting.pop()
        found[name] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += [(f"{name} {key}".strip(), each) for key, each in action.choices.items()]
    return found


FLAGS = {
    name: {text[2:] for action in parser._actions for text in action.option_strings if text.startswith("--")}
    for name, parser in parsers().items()
}
BENCHMARKS = {path.stem: path for path in (REPO / "benchmarks").rglob("*.py")}
ANY_BENCHMARK = {flag for path in BENCHMARKS.values() for flag in re.findall(r'"--([\w-]+)"', path.read_text())}


PACKAGE = "\n".join(path.read_text() for path in (REPO / "tvt_ray").rglob("*.py"))
DEFINED = {a or b for a, b in re.findall(r"\bclass (\w+)|^([A-Z]\w+)\b[^=\n]* = ", PACKAGE, re.MULTILINE)}


def unknown_names(text):
    """CamelCase in code that neither the package nor the page's own examples define, nor others whom the list knows."""
    python = "\n".join(blocks_of(text, "python"))
    known = DEFINED | set(re.findall(r"\bclass (\w+)", python))
    imports = re.findall(r"^(?:from (?!tvt_ray)\S+ )?import (.+)", python, re.MULTILINE)
    known |= set(re.findall(r"\w+", " ".join(imports)))
    code = "\n".join([*spans_of(text), *blocks_of(text)])
    return set(re.findall(r"(?<![\w./-])[A-Z]\w*[a-z][A-Z]\w*\b", code)) - known - OTHERS_NAMES


def unknown_commands(text):
    """Commands that are not, and flags that their command does not take; flags alone are of any command."""
    wrong, any_flag = set(), set().union(*FLAGS.values(), ANY_BENCHMARK, OTHERS_FLAGS)
    plain = re.findall(r"^ *(?:RAY_\w+=\S+ )?(?:python|tvt|ray) .*", re.sub(r"\s*\\\n\s*", " ", text), re.MULTILINE)
    for line in [*plain, *spans_of(text), *"\n".join(blocks_of(text)).splitlines()]:
        matches = list(re.finditer(COMMAND, line))
        for match, end in zip(matches, [*(each.start() for each in matches[1:]), len(line)], strict=False):
            words = line[match.start() : end]
            allowed = flags_of(match, words)
            wrong |= {match[0]} if allowed is None else set(re.findall(FLAG, words)) - allowed
        if line.startswith("--"):
            wrong |= set(re.findall(FLAG, line)) - any_flag
    return wrong


def flags_of(match, words):
    """What a command takes; None: it is none."""
    if match["script"]:
        names = FLAGS[f"{match['script']}.py"]
    elif match["command"]:
        deeper = " ".join(re.match(r".*?\b(?:tvt|tvt_ray) (\w[\w-]*)(?: (\w+))?", words).groups(""))
        names = FLAGS.get(deeper, FLAGS.get(match["command"]))
    elif match["benchmark"] in {*BENCHMARKS, "NAME"}:
        names = ANY_BENCHMARK | OPTIONS.keys()
    else:
        names = None
    return names


def unknown_settings(text):
    """Dotted names that begin as a section of the config does and are no setting, of any space."""
    sections = "|".join(RunConfig.model_fields)
    prose = re.sub(r"^ *```python.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(rf"(?<![\w./-])(?:{sections})(?:\.[a-z_]+)+\b(?![/.(])", prose)
    files = re.compile(r"\.(py|md|ya?ml|jsonl?|html|png|safetensors)$")
    return {name for name in found if not files.search(name) and not is_setting(name.split("."))}


def is_setting(path):
    """Whether the config has it; a loss of an example's counts as one."""
    models = [RunConfig]
    for part in path:
        fields = [model.model_fields[part] for model in models if part in getattr(model, "model_fields", ())]
        if not fields:
            return models == [dict] and part in {*LOSSES, "relations"}
        if part == "space":
            models = list(SPACES.values())
        else:
            models = [dict if str(field.annotation).startswith("dict") else field.annotation for field in fields]
    return True


def missing_files(text):
    """Paths of the repository that are not there; of code, from the package too."""
    code = "\n".join([*spans_of(text), *blocks_of(text, r"(?!python)\w*"), *re.findall(r"\b\S+\.\w+\b", text)])
    folders = r"tvt_ray|tests|docs|benchmarks|configs|kuberay|dashboards|\.github|\.ci"
    paths = set(re.findall(rf"(?<![\w./:-])(?:{folders})/[\w./-]*[\w/]", code))
    paths |= {span for span in spans_of(text) if re.fullmatch(r"[a-z_]+/[a-z_]+\.py", span)}
    named = {path for path in paths - OTHERS_PATHS if not (REPO / path.partition("NAME")[0]).exists()}
    return {path for path in named if not (REPO / "tvt_ray" / path).exists()}


CHECKS = [unknown_names, unknown_commands, unknown_settings, missing_files]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page, check):
    assert check(PAGES[page]) == set()


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (unknown_names, "An `EpochBoard` keeps it."),
        (unknown_names, "```python\nfrom tvt_ray.vits import PlainSpace\n```"),
        (unknown_commands, "See `tvt scores`."),
        (unknown_commands, "```\ntvt refine --run-dir a \\\n    --num-student 3\n```"),
        (unknown_commands, "```\nRAY=1 ray job submit --address x -- python search.py --top-k 3\n```"),
        (unknown_commands, "`--num-sample` says how many."),
        (unknown_commands, "```\npython benchmarks/workings.py\n```"),
        (unknown_commands, "```\npython -m benchmarks workings\n```"),
        (unknown_settings, "It is `distill.loss.weight.logits`."),
        (unknown_settings, "```\ntvt search --set search.num_workers=3\n```"),
        (unknown_settings, "With space.embed_dims it differs."),
        (missing_files, "As `tvt_ray/cluster/epochs.py` has it."),
        (missing_files, "As `students/drawn.py` has it."),
        (missing_files, "```\ntvt search --config configs/wide31_cifar10.yaml\n```"),
    ],
)
def test_a_name_that_is_wrong_would_be_seen(check, text):
    assert len(check(text)) == 1


def test_the_reference_of_settings_is_what_its_command_prints(capsys):
    runpy.run_path(str(REPO / "docs" / "settings.py"), run_name="__main__")
    assert capsys.readouterr().out == (REPO / "docs" / "settings.md").read_text()
