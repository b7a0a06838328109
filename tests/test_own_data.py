"""docs/own_data.md, walked literally: its scripts are run and its commands print what the page says."""

import re
import runpy
import shlex

import pytest
from PIL import Image

from tests.conftest import REPO, call
from tvt_ray.data.layout import WORDS

PAGE = REPO / "docs" / "own_data.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```(python)?\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
HOME = "/home/me"  # where the page is walked


def steps():
    """(script name and code, or None; command and what it prints, or None) in the order of the page."""
    for kind, body in BLOCKS:
        if kind:
            yield (body.split('"""')[1], body), None
        else:
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
                yield None, (command, output)


def walk_page(capsys, folder):
    """Runs everything; gives the page's console blocks as they are printed here, one after the other."""
    printed = []
    for script, command in steps():
        if script:
            (folder / script[0]).write_text(script[1])
            continue
        words = shlex.split(command[0])
        if words[0] == "python":
            runpy.run_path(str(folder / words[1]), run_name="__main__")
            printed.append("")
        else:
            code, out, err = call(capsys, *words[1:])
            lines = [line for line in err.splitlines() if not re.search(r"\d/s$", line)]  # progress
            assert code == (2 if lines else 0), err
            printed.append("".join(f"{line}\n" for line in [*out.splitlines(), *lines]).replace(str(folder), HOME))
    return printed


def _plain(text):
    """Without what a network's features reach: their last bits are the processor's, which few images tell."""
    return re.sub(r"(?m)^(labels .*)$", lambda line: re.sub(r"\d+\.\d", "N", line[1]), text)


@pytest.mark.slow
def test_what_the_page_shows_is_what_is_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)  # as where the page was written
    printed = walk_page(capsys, tmp_path)
    assert list(map(_plain, printed)) == [_plain(command[1]) for _, command in steps() if command]
    assert len(printed) > 7
    with Image.open(tmp_path / "sheets" / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize("word", [word for words in WORDS.values() for word in words])
def test_every_name_of_a_split_is_on_the_page(word):
    assert f"`{word}`" in TEXT.split("**Names of splits.**")[1].split("\n\n")[0]
