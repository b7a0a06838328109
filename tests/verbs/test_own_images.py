"""What all verbs promise: whatever adds to a run, or is compared with it, is on the run's own images."""

import json
import shutil

import pytest

from tests.data.samples import picture
from tests.verbs.conftest import SPACE
from tvt_ray.errors import UsageError
from tvt_ray.runs.inputs import load_data
from tvt_ray.verbs.distill import distill
from tvt_ray.verbs.score import score_one
from tvt_ray.verbs.search import search
from tvt_ray.verbs.trainings import recipe_of


@pytest.fixture
def arch_file(tmp_path):
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(SPACE.to_json(next(iter(SPACE.enumerate())))))
    return path


@pytest.fixture(params=["search", "distill", "score"])
def go_on(request, run_folder, arch_file):
    """Goes on with the run by one of the verbs."""
    verbs = {
        "search": lambda config: search(config, run_dir=run_folder.path, resume=True),
        "distill": lambda config: distill(run_folder.path, settings=config),
        "score": lambda config: score_one(config, arch_file, run_folder.path),
    }
    return verbs[request.param]


def add_a_class(photos):
    (photos / "wasps").mkdir()
    for i in range(10):
        picture(900 + i).save(photos / "wasps" / f"{i}.png")


def add_an_image(photos):
    picture(900).save(photos / "ants" / "new.png")


def replace_an_image(photos):
    picture(900).save(photos / "ants" / "0.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (add_a_class, "its classes are ants, bees, and here ants, bees, wasps"),
        (add_an_image, "its train split has 14 images, and here it has 15"),
        (replace_an_image, "as many images, but some are others, or have other labels, or are in other splits"),
    ],
)
def test_other_images_are_refused_in_one_line_and_nothing_is_written(
    change, told, go_on, photos, config_of, run_folder
):
    before = {path: path.read_bytes() for path in run_folder.path.rglob("*") if path.is_file()}
    change(photos)
    with pytest.raises(UsageError) as error:
        go_on(config_of(photos))
    assert f"{run_folder.path} holds a run on other images than imagefolder:{photos} has: {told}" in str(error.value)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in before} == before


def test_another_probe_is_refused(go_on, photos, config_of):
    with pytest.raises(UsageError, match=r"probe\.num_images is 5 here and 4 there|other images .* \(the probe\)"):
        go_on(config_of(photos, probe={"num_images": 5}))


def test_the_same_images_at_another_place_may_go_on(photos, config_of, run_folder, arch_file, tmp_path):
    shutil.move(photos, tmp_path / "elsewhere")
    config = config_of(tmp_path / "elsewhere")
    run_folder.check(config, resume=True)
    assert score_one(config, arch_file, run_folder.path).components.keys() == {"rank_sum", "log_norm"}


def test_a_recipe_does_not_depend_on_where_the_images_lie(photos, config_of, tmp_path):
    shutil.copytree(photos, tmp_path / "copy")
    configs = [config_of(photos), config_of(tmp_path / "copy"), config_of(photos, data={"split_seed": 1})]
    here, copy, other = (recipe_of(config, load_data(config)) for config in configs)
    assert here == copy != other


def test_a_recipe_does_not_depend_on_the_seed_which_stands_beside_it(photos, config_of):
    configs = [config_of(photos, distill={"seed": seed, "epochs": epochs}) for seed, epochs in ((0, 3), (1, 3), (0, 4))]
    first, other_seed, longer = (recipe_of(config, load_data(config)) for config in configs)
    assert first == other_seed != longer


def test_a_run_that_does_not_say_which_images_it_is_of_is_taken_to_be_of_these(
    photos, config_of, run_folder, arch_file, capsys
):
    """As an earlier version left it."""
    run_folder.data_file.unlink()
    score_one(config_of(photos), arch_file, run_folder.path)
    assert "does not say which images it is of: they are taken to be those of imagefolder:" in capsys.readouterr().err
