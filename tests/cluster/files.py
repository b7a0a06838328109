"""The files that describe clusters, and the commands that they and the docs give."""

import re
import shlex
from pathlib import PurePosixPath
from typing import Any

import yaml

from tests.conftest import REPO
from tvt_ray.cli import distill, search
from tvt_ray.cli.main import build_parser, script_parser

LAUNCHED = ("cluster.yaml", "cluster-onprem.yaml")
MANIFEST = "kuberay/rayjob.yaml"
DOCUMENTED = (*LAUNCHED, MANIFEST, "docs/cluster.md")
INSTALLED_AT = PurePosixPath("~/tvt_ray")
IMAGE_FOLDER = PurePosixPath("/home/ray/tvt_ray")


def text_of(name: str) -> str:
    return (REPO / name).read_text()


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text_of(name)))


def pins() -> dict[str, str]:
    lines = [line for line in text_of("constraints.txt").splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def lines_of(text: str) -> list[str]:
    """Lines without their comment signs, and continued ones joined."""
    plain = re.sub(r"^ *# ?", "", text, flags=re.MULTILINE)
    return re.sub(r"\s*\\\n\s*", " ", plain).splitlines()


def parse_project_commands(text: str) -> list[Any]:
    """What the project's own parsers make of every search.py, distill.py and tvt command in a text, prose included."""
    parsers = {
        "search.py": script_parser("search.py", search.add),
        "distill.py": script_parser("distill.py", distill.add),
    }
    found = []
    for line in lines_of(text):
        for script, flags in re.findall(r"\bpython \S*?\b(search\.py|distill\.py)\b([^`]*)", line):
            found.append(parsers[script].parse_args(shlex.split(flags, comments=True)))
        for flags in re.findall(r"(?:^\s*|-- |`)tvt (\w[^`]*)", line):
            found.append(build_parser().parse_args(shlex.split(flags, comments=True)))
    return found


def ray_commands(text: str) -> list[list[str]]:
    """The words of every line that is a `ray …` command, without its column of explanation."""
    starts = (re.match(r"\s*(?:RAY_\w+=\S+ )*ray ([a-z].*)", line) for line in lines_of(text))
    return [shlex.split(re.split(r" {3,}", start[1])[0], comments=True) for start in starts if start]
