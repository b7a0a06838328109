"""The whole run as one validated model, and what is said where it is not valid."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO
from tvt_ray.cli.main import build_parser
from tvt_ray.cli.options import overrides
from tvt_ray.data.datasets import DATASETS
from tvt_ray.errors import UsageError
from tvt_ray.runs.config import FORMAT, RunConfig, difference, load_config, validate
from tvt_ray.runs.yaml_text import parse_assignment
from tvt_ray.vits.budget import format_count

CONFIGS = sorted((REPO / "configs").glob("*.yaml"))
# Lines of the table of variants: (name, flags, architectures, largest).
VARIANTS = re.findall(
    r"^\| (.*?) \| `(--config .*?)` \| ([\d,]+) \| (\S+) \|$", (REPO / "docs" / "spaces.md").read_text(), re.MULTILINE
)


def with_settings(*assignments):
    return load_config(None, [parse_assignment(each) for each in assignments])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_opens_with_its_command(path):
    config = load_config(path)
    assert config.data.name in DATASETS
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# python search.py --config configs/{path.name}")
    assert any(config.budget.admits(*config.space.cost(arch, 100)) for arch in [_some(config.space)])
    assert validate(yaml.safe_load(config.to_yaml())) == config


def _some(space):
    """An architecture in the middle of the space."""
    return space.decode([count // 2 for count in space.dimensions])


def test_digits_is_the_default():
    assert load_config(REPO / "configs" / "digits.yaml") == load_config(None) == RunConfig()
    assert RunConfig().format == FORMAT == 2


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant[0])
def test_variants_on_the_page_of_spaces_hold_what_it_says_of_them(variant):
    name, flags, size, largest = variant
    args = build_parser().parse_args(["search", *shlex.split(flags)])
    config = load_config(REPO / args.config, [overrides(args)])
    assert f"{config.space.size():,}" == size
    assert f"{config.space.image_size} pixels" in name
    num_classes = {"cifar10": 10, "cifar100": 100}[config.data.name]
    assert format_count(config.space.largest(num_classes).params) == largest


def test_every_config_and_no_other_is_on_the_page_of_spaces():
    named = {re.search(r"configs/\S+", flags)[0] for _, flags, _, _ in VARIANTS}
    assert named | {"configs/digits.yaml"} == {f"configs/{path.name}" for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_that_counts_its_architectures_counts_them_right(path):
    text, space = path.read_text(), load_config(path).space
    for count in re.findall(r"([\d,.e]+) (?:architectures\b(?! a)|plain ViTs|PiTs)", text):
        assert count in (f"{space.size():,}", f"{space.size():.3g}".replace("e+0", "e"))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("probe.num_imges=3", "unknown config key 'probe.num_imges': did you mean 'probe.num_images'"),
        ("prob.num_images=3", "did you mean 'probe'"),
        ("space.embed_dims=[64]", "did you mean 'space.embed_dim'"),
        ("distill.loss.temprature=2", "did you mean 'distill.loss.temperature'"),
        ("space.name=swin", "choices: autoformer, pit, vit"),
        ("search.searcher=anneal", "random, exhaustive, evolution, tpe, nsga2"),
        ("score.name=accuracy", "choices: capacity, tvt, "),
        ("teacher.name=resnet57", "choices: resnet20"),
        ("search.num_samples=0", "greater than 0"),
        ("cluster.gpus_per_trial=1.5", "fraction of one GPU"),
        ("budget.max_params=lots", "6M or 1.5G"),
        ("data.val_fraction=1", "less than 1"),
        ("data.background=whitish", "config data.background: a colour is written as in white"),
        ("data.max_pixels=0", "config data.max_pixels: Input should be greater than 0"),
        ("probe=3", "config probe"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(assignment, message):
    with pytest.raises(UsageError) as error:
        with_settings(assignment)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("assignment", "key", "meant", "allowed"),
    [
        ("sed=1", "sed", "seed", "format, plugins, seed, space, budget"),
        ("wholly_other=1", "wholly_other", None, "format, plugins, seed, space, budget"),
        ("cluster.scoring_worker=3", "cluster.scoring_worker", "cluster.scoring_workers", "scoring_workers, archs"),
        ("cluster.wholly_other=3", "cluster.wholly_other", None, "scoring_workers, archs_per_trial"),
        ("cluster.wholly.other=3", "cluster.wholly", None, "scoring_workers, archs_per_trial"),
        ("search.num_sample=3", "search.num_sample", "search.num_samples", "num_samples, searcher"),
        ("score.reading=full", "score.reading", "score.readings", "name, prior, readings"),
        (
            "teacher_training.epoch=3",
            "teacher_training.epoch",
            "teacher_training.epochs",
            "epochs, min_steps, batch_size",
        ),
        ("distill.epoch=3", "distill.epoch", "distill.epochs", "epochs, batch_size"),
        ("distill.augment.hflp=1", "distill.augment.hflp", "distill.augment.hflip", "scale, ratio, hflip"),
        ("distill.loss.weight={}", "distill.loss.weight", "distill.loss.weights", "weights, student_blocks"),
        ("space.embed_dims=[64]", "space.embed_dims", "space.embed_dim", "name, image_size, patch_size, embed_dim"),
        ("space.wholly_other=1", "space.wholly_other", None, "name, image_size, patch_size, embed_dim"),
        ("space={name: pit, base_dims: [8]}", "space.base_dims", "space.base_dim", "name, image_size, patch_size"),
    ],
)
def test_an_unknown_key_at_any_depth_is_told_the_nearest_and_what_is_allowed_there(assignment, key, meant, allowed):
    with pytest.raises(UsageError) as error:
        with_settings(assignment)
    hint = f"did you mean {meant!r}? " if meant else ""
    assert str(error.value).startswith(f"unknown config key {key!r}: {hint}allowed here: {allowed}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("space.depth=[0]", "config space.depth: choices are positive numbers; got [0]"),
        ("space.num_heads=[5]", "config space: embed_dim 64 does not divide into 5 heads"),
        ("space.image_size=33", "config space: image_size 33 is not a multiple of patch_size 8"),
        ("space.image_size=big", "config space.image_size: Input should be a valid integer"),
        ("space={name: pit, depth: [[1, 2]]}", "config space.depth.0.2: Field required (got [1, 2])"),
        ("space={name: pit, num_heads: [2, 2]}", "config space.num_heads: a choice list names each value once"),
        ("space=pit", "config space: a space is a mapping of settings with a name; got 'pit'"),
        ("space=3", "config space: a space is a mapping of settings with a name; got 3"),
        ("space.name=[pit]", "config space: unknown search space ['pit']; choices: autoformer, pit, vit"),
        ("distill.loss.weights={nope: 1}", "config distill.loss.weights: unknown loss 'nope'; choices: cross_entropy"),
        ("score.proxies=[nope]", "config score.proxies: unknown proxy 'nope'; choices: attention_similarity, "),
        (
            "score={name: synflow, proxies: [rank_sum]}",
            "config score: score 'synflow' is made of 'synflow', which this run did not read",
        ),
        ("search.objectives=score_flops", "config search: objectives score_flops needs the searcher nsga2"),
        ("budget={min_params: 3, max_params: 2}", "config budget: min_params 3 is above max_params 2"),
        ("format=1", "config format: Input should be 2 (got 1)"),
        ("plugins=mine", "config plugins: Input should be a valid tuple (got 'mine')"),
        ("plugins=[3]", "config plugins.0: Input should be a valid string (got 3)"),
    ],
)
def test_a_value_that_is_wrong_is_named_with_its_rule(assignment, message):
    with pytest.raises(UsageError) as error:
        with_settings(assignment)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": {"image_size": 32_000_000}}, r"space.*image_size: .*less than or equal to 4096"),
        ({"teacher": {"image_size": 10**8}}, "teacher.image_size: .*less than or equal to 4096"),
        ({"space": {"embed_dim": [10**10]}}, "choices are at most 65,536; got 10,000,000,000"),
        ({"space": {"depth": [10**9]}}, "a network has at most 1,000 blocks; got 1,000,000,000"),
        ({"space": {"name": "vit", "depth": [2, 1001]}}, "at most 1,000 blocks; got 1,001"),
        ({"space": {"name": "pit", "depth": [[1, 1, 10**9]]}}, "at most 1,000 blocks; got 1,000,000,002"),
    ],
)
def test_a_size_beyond_every_machine_is_one_line(settings, said):
    with pytest.raises(UsageError, match=said) as refused:
        RunConfig().with_(settings)
    assert "\n" not in str(refused.value)


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(UsageError, match="no config file"):
        load_config(tmp_path / "absent.yaml")
    for text, message in (("a: [", "not YAML"), ("- 1", "mapping"), ("sed: 1", "did you mean 'seed'")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(UsageError, match=message):
            load_config(tmp_path / "c.yaml")
    with pytest.raises(UsageError, match=r"key\.path=value"):
        parse_assignment("num_images")
    with pytest.raises(UsageError, match=r"--set seed: '\[' is not YAML"):
        parse_assignment("seed=[")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed: 1 # \xe9", b"\x00"], ids=repr)
def test_a_file_that_is_not_utf8_is_one_line(content, tmp_path):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.yaml is not YAML: ") as error:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)


def test_a_key_that_is_there_twice_is_refused_with_file_and_lines(tmp_path):
    (tmp_path / "c.yaml").write_text("distill:\n  epochs: 3\n  lr: 0.1\n  epochs: 4\n")
    with pytest.raises(UsageError) as error:
        load_config(tmp_path / "c.yaml")
    assert str(error.value) == (
        f"{tmp_path / 'c.yaml'} is not YAML: line 4, column 3: the key 'epochs' is there twice (first in line 2)"
    )
    with pytest.raises(
        UsageError, match=r"--set space: .* is not YAML: line 1, column 13: the key 'name' is there twice"
    ):
        parse_assignment("space={name: pit, name: autoformer}")


def test_anchors_and_merge_keys_work(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: &n 7\nsearch: &s {num_samples: *n}\ndistill: {<<: {epochs: 3}, seed: *n}\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.seed, config.search.num_samples, config.distill.epochs, config.distill.seed) == (7, 7, 3, 7)


def test_of_assignments_of_one_key_the_last_counts():
    assert with_settings("seed=3", "seed=4").seed == 4
    assert with_settings("search={num_samples: 3}", "search.num_samples=4").search.num_samples == 4


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: *a}",
        "space: &a {name: *a}",
        "space: &a {name: pit, depth: *a}",
        "plugins: &a [*a]",
        "1: 2",
        "? null\n: 3",
        "- seed",
        "seed: 2024-01-01",
        "seed: !!set {a}",
        "seed: .nan",
        "search: !!omap [a: 1]",
        "space: !!set {name}",
    ],
)
def test_odd_documents_are_one_line(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)


def test_overrides_come_last_and_merge(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("search: {num_samples: 7, searcher: tpe}\nbudget: {max_params: 1.5M}")
    config = load_config(path, [parse_assignment("search.num_samples=9")])
    assert (config.search.num_samples, config.search.searcher) == (9, "tpe")
    assert config.budget.max_params == 1_500_000
    assert config.space == RunConfig().space


def test_another_space_starts_from_its_own_defaults():
    config = with_settings("space={name: pit, image_size: 64}")
    assert (config.space.name, config.space.image_size, config.space.patch_size) == ("pit", 64, 16)


def test_runs_differ_in_what_decides_their_rows():
    base = RunConfig()
    assert difference(base, with_settings("search.num_samples=9")) is None
    assert "seed is 0 here and 1 there" in (difference(base, load_config(None, [{"seed": 1}])) or "")
    assert "probe.num_images" in (difference(base, with_settings("probe.num_images=9")) or "")


def test_paths_of_a_config_are_absolute_and_know_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = with_settings("data.name=imagefolder:photos", "teacher={weights: w.pt, pretrained: ~/p.pt}")
    assert config.data.name == f"imagefolder:{tmp_path}/photos"
    assert (config.data.root, config.teacher.weights) == (tmp_path / "data", tmp_path / "w.pt")
    assert config.teacher.pretrained == Path("/home/me/p.pt")
    assert with_settings("teacher.pretrained=false").teacher.pretrained is False
    monkeypatch.chdir("/")
    assert validate(yaml.safe_load(config.to_yaml())) == config
    assert RunConfig().data.root == Path("/data")
    with pytest.raises(UsageError, match=r"config teacher\.weights: paths are UTF-8; got /caf\\xe9"):
        load_config(None, [{"teacher": {"weights": "/caf\udce9"}}])


def test_where_the_data_lies_makes_no_other_run():
    """What is there does: runs/identity.py."""
    moved = with_settings("data={name: 'imagefolder:/b', root: /c, download: false, max_pixels: 9}")
    assert difference(moved, with_settings("data.name=imagefolder:/a")) is None
    assert "data.background is black here and white there" in (
        difference(with_settings("data.background=black"), RunConfig()) or ""
    )


@pytest.mark.parametrize(
    "assignment",
    ["score.name=tvt", "score.name=params", "cluster.scoring_workers=3", "distill.epochs=3", "search.searcher=tpe"],
)
def test_what_changes_no_row_makes_no_other_run(assignment):
    """Among it the score that ranks, as long as the same is read."""
    assert difference(with_settings(assignment), RunConfig()) is None
    assert difference(RunConfig(), with_settings(assignment)) is None


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("score.name=synflow", "read.proxies is "),
        ("score.readings=score", "read.proxies is "),
        ("score.proxies=[rank_sum, log_norm]", "read.proxies is ['rank_sum', 'log_norm'] here and ['attention_"),
        ("score.calibration_samples=9", "read.calibration_samples is 9 here and 64 there"),
        ("space.depth=[3]", "space.depth is [3] here and [3, 4, 5, 6] there"),
        ("budget.max_params=1M", "budget.max_params is 1000000 here and None there"),
        ("data.split_seed=4", "data.split_seed is 4 here and 0 there"),
        ("teacher.name=resnet32", "teacher.name is resnet32 here and resnet20 there"),
        ("teacher_training.epochs=4", "teacher_training.epochs is 4 here and 10 there"),
    ],
)
def test_what_changes_rows_makes_another_run(assignment, told):
    assert (difference(with_settings(assignment), RunConfig()) or "").startswith(told)


def test_a_stored_run_that_says_what_it_read_is_the_same_as_one_that_is_asked_for_it():
    stored = with_settings("score.proxies=[attention_similarity, l2_norm, rank_sum, log_norm]")
    assert difference(RunConfig(), stored) is None
    assert difference(with_settings("score={name: tvt}"), stored) is None


def test_epochs_that_are_set_win_over_a_floor_that_was_set_before():
    """As `--set teacher_training.epochs=1` over a recipe's floor."""
    recipe = RunConfig().with_(teacher_training={"epochs": 20, "min_steps": 400})
    assert recipe.teacher_training.min_steps == 400
    asked = recipe.with_({"teacher_training": {"epochs": 1}})
    assert (asked.teacher_training.epochs, asked.teacher_training.min_steps) == (1, 0)
    assert asked.teacher_training.num_epochs(100) == 1
    both = recipe.with_({"teacher_training": {"epochs": 1, "min_steps": 9}})
    assert (both.teacher_training.epochs, both.teacher_training.min_steps) == (1, 9)
    assert recipe.with_({"teacher_training": {"lr": 0.1}}).teacher_training.min_steps == 400
