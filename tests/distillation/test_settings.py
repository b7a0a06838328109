import pytest
from pydantic import ValidationError

from tvt_ray.distillation.settings import DistillSettings
from tvt_ray.runs.yaml_text import parse_assignment


def test_the_recipe_is_the_published_one():
    recipe = DistillSettings()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == (300, 128, 5e-4, 0.05)
    assert (recipe.warmup_epochs, recipe.warmup_lr, recipe.min_lr) == (20, 5e-7, 5e-6)


def test_settings_go_there_and_back():
    settings = DistillSettings.model_validate({"epochs": 3, "loss": {"weights": {"logits": 1}, "temperature": 2}})
    assert DistillSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"lr": 0}, {"weight_decay": -1}, {"num_workers": 2}, {"loss": {"feature_weight": 1}}]
)
def test_impossible_recipes_cannot_be_written(settings):
    with pytest.raises(ValidationError):
        DistillSettings.model_validate(settings)


def test_off_is_what_yaml_makes_of_it_too():
    assert DistillSettings.model_validate(parse_assignment("amp=off")).amp == "off"
    with pytest.raises(ValidationError):
        DistillSettings.model_validate({"amp": True})
