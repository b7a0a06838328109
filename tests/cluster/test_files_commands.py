"""Commands in the cluster files and in docs/cluster.md: the project's own parser and Ray's must take them."""

import re
import shutil

import click
import pytest
from ray.scripts.scripts import cli as ray_cli

from tests.cluster.files import DOCUMENTED, IMAGE_FOLDER, LAUNCHED, parse_project_commands, ray_commands, text_of
from tests.conftest import REPO
from tvt_ray.cli.options import overrides
from tvt_ray.runs.config import load_config


@pytest.mark.parametrize(("name", "least"), list(zip(DOCUMENTED, (1, 1, 3, 9), strict=True)))
def test_documented_commands_parse(name, least):
    parsed = parse_project_commands(text_of(name))
    assert len(parsed) >= least
    for args in parsed:
        config = getattr(args, "config", None)
        assert config is None or (REPO / str(config).removeprefix(f"{IMAGE_FOLDER}/")).is_file()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_settings_are_settings(name):
    for args in parse_project_commands(text_of(name)):
        if hasattr(args, "set"):
            config = getattr(args, "config", None)
            load_config(config and REPO / str(config).removeprefix(f"{IMAGE_FOLDER}/"), [overrides(args)])


@pytest.mark.parametrize("flag", ["--rundir x", "--num-sample 3", "--top-k 2"])
def test_a_renamed_flag_would_be_seen(flag, capsys):
    with pytest.raises(SystemExit):
        parse_project_commands(f"#   ray job submit -- \\\n#     python search.py --seed 1 {flag}")
    assert capsys.readouterr().err


def parse_ray_command(words: list[str]) -> None:
    """Raises click.UsageError for what Ray's command line would not take."""
    command: click.Command = ray_cli
    while isinstance(command, click.Group):
        name, *words = words
        if name not in command.commands:
            raise click.UsageError(f"ray has no command {name}")
        command = command.commands[name]
    command.make_context(name, list(words))


@pytest.mark.parametrize(("name", "least"), list(zip((*LAUNCHED, "docs/cluster.md"), (5, 5, 15), strict=True)))
def test_documented_ray_commands_are_rays(name, least):
    found = ray_commands(text_of(name))
    assert len(found) >= least
    for words in found:
        parse_ray_command(words)
        for word in words:
            assert not word.endswith(".yaml") or (REPO / word).is_file()


@pytest.mark.parametrize("line", ["ray upp cluster.yaml", "ray job submit --adress x -- python search.py"])
def test_a_wrong_ray_command_would_be_seen(line):
    (words,) = ray_commands(line)
    with pytest.raises(click.UsageError):
        parse_ray_command(words)


def test_what_the_docs_name_exists():
    text = text_of("docs/cluster.md")
    headings = {
        re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    anchors = re.findall(r"\]\(#([\w-]+)\)", text)
    files = re.findall(r"(?:^|[\s`])((?:kuberay/|configs/|aws/)?[\w-]+\.yaml|kuberay/Dockerfile)", text)
    assert set(anchors) <= headings
    assert len(anchors) >= 3
    assert len(set(files)) >= 5
    assert all((REPO / name).is_file() for name in files)


def test_a_job_takes_no_keys_and_no_run_folders_along_and_all_of_the_package(tmp_path):
    """As `ray job submit --working-dir .` decides it."""
    from ray._private.runtime_env.packaging import _dir_travel

    shutil.copy(REPO / ".rayignore", tmp_path)
    private = [".env", "server.pem", "keys/id_rsa", ".aws/credentials", "credentials-prod.json", "auth_token"]
    private += ["runs/first/config.yaml", "data/photos/1.jpg", "train.parquet", ".git/config"]
    public = ["search.py", "tvt_ray/data/images.py", "tvt_ray/runs/folder.py", "configs/digits.yaml"]
    for name in (*private, *public):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sent = set()
    _dir_travel(tmp_path, [], lambda path: sent.add(str(path.relative_to(tmp_path))), include_gitignore=True)
    assert not sent & set(private)
    assert sent >= set(public)
    ignored = (REPO / ".dockerignore").read_text()
    assert all(word in ignored for word in (".env", "*.pem", "id_rsa*", "runs", "*.parquet"))
