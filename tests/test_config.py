import pytest
import yaml

from tests.conftest import REPO
from tvt_ray.config import RunConfig, difference, load_config, parse_assignment, validate
from tvt_ray.data import DATASETS
from tvt_ray.errors import UsageError

CONFIGS = sorted((REPO / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_opens_with_its_command(path):
    config = load_config(path)
    assert config.data.name in DATASETS
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# python search.py --config configs/{path.name}")
    assert any(config.budget.admits(config.space.cost(arch, 100)) for arch in [_some(config.space)])
    assert validate(yaml.safe_load(config.to_yaml())) == config


def _some(space):
    """An architecture in the middle of the space."""
    return space.decode([count // 2 for count in space.dimensions])


def test_digits_is_the_default():
    assert load_config(REPO / "configs" / "digits.yaml") == load_config(None) == RunConfig()


def test_spaces_and_datasets_of_the_paper_are_there():
    names = {path.stem for path in CONFIGS}
    assert {f"{s}_{d}" for s in ("autoformer", "pit") for d in ("cifar100", "flowers102", "chaoyang")} <= names
    assert load_config(REPO / "configs" / "autoformer_cifar100.yaml").space.size() == 1_056_964_608
    assert load_config(REPO / "configs" / "pit_cifar100.yaml").space.size() == 1600


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("probe.num_imges=3", "unknown config key 'probe.num_imges': did you mean 'probe.num_images'"),
        ("prob.num_images=3", "did you mean 'probe'"),
        ("space.embed_dims=[64]", "did you mean 'space.embed_dim'"),
        ("distill.loss.temprature=2", "did you mean 'distill.loss.temperature'"),
        ("space.name=swin", "choices: autoformer, pit"),
        ("search.searcher=anneal", "'random', 'exhaustive', 'evolution', 'tpe' or 'nsga2'"),
        ("score.name=accuracy", "choices: tvt_ray, tvt, "),
        ("teacher.name=resnet57", "choices: resnet20"),
        ("search.num_samples=0", "greater than 0"),
        ("search.gpus_per_trial=1.5", "fraction of one GPU"),
        ("budget.max_params=lots", "6M or 1.5G"),
        ("data.val_fraction=1", "less than 1"),
        ("probe=3", "config probe"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(assignment, message):
    with pytest.raises(UsageError) as error:
        load_config(None, [parse_assignment(assignment)])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(UsageError, match="no config file"):
        load_config(tmp_path / "absent.yaml")
    for text, message in (("a: [", "not YAML"), ("- 1", "mapping"), ("sed: 1", "did you mean 'seed'")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(UsageError, match=message):
            load_config(tmp_path / "c.yaml")
    with pytest.raises(UsageError, match=r"key\.path=value"):
        parse_assignment("num_images")


def test_overrides_come_last_and_merge(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("search: {num_samples: 7, searcher: tpe}\nbudget: {max_params: 1.5M}")
    config = load_config(path, [parse_assignment("search.num_samples=9")])
    assert (config.search.num_samples, config.search.searcher) == (9, "tpe")
    assert config.budget.max_params == 1_500_000
    assert config.space == RunConfig().space


def test_another_space_starts_from_its_own_defaults():
    config = load_config(None, [parse_assignment("space={name: pit, image_size: 64}")])
    assert (config.space.name, config.space.image_size, config.space.patch_size) == ("pit", 64, 16)


def test_runs_differ_in_what_decides_their_rows():
    base = RunConfig()
    assert difference(base, load_config(None, [parse_assignment("search.num_samples=9")])) is None
    assert "seed is 0 here and 1 there" in (difference(base, load_config(None, [{"seed": 1}])) or "")
    assert "probe.num_images" in (difference(base, load_config(None, [parse_assignment("probe.num_images=9")])) or "")
