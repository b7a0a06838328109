"""What a model card says, and that its head is what hubs read."""

import dataclasses
import json
import random
import re

import pytest
import yaml

from tests.exports.conftest import CLASSES
from tvt_ray.exports.folder import Origin, StudentCard, public_name
from tvt_ray.exports.model_card import UNKNOWN, model_card
from tvt_ray.vits import Space

RESULTS = {
    "epochs": 40,
    "val_acc": 92.0,
    "test_acc": 90.0,
    "teacher": "resnet20",
    "teacher_test_acc": 95.25,
    "guided": True,
    "dataset": "imagefolder:/home/somebody/photos",
}
ORIGIN = Origin(
    data={"name": "imagefolder:photos", "fingerprint": "0123456789abcdef", "train": 1500, "val": 50, "test": 200},
    search={"space": "x", "score": "capacity", "num_scored": 5000, "num_shapes": 217, "num_measured": 16, "place": 3},
    recipe={"epochs": 40, "batch_size": 32},
    versions={"tvt_ray": "0.1.0", "torch": "2.9.1"},
)


@pytest.fixture
def card(space):
    return StudentCard(space, space.sample(random.Random(0)), CLASSES, RESULTS, origin=ORIGIN)


def sections(text):
    return dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE))


def test_the_head_is_what_the_hub_reads(card):
    _, head, body = model_card(card).split("---\n", 2)
    found = yaml.safe_load(head)
    assert found["library_name"] == "timm"
    assert found["license"] == "other"
    assert found["pipeline_tag"] == "image-classification"
    assert {"image-classification", "timm"} <= set(found["tags"])
    assert body.startswith(f"# {card.space.arch_id(card.arch)}\n")


def test_students_of_a_space_that_timm_has_no_model_of_are_tvt_rays(card, monkeypatch):
    monkeypatch.setattr(type(card.space), "timm_model", Space.timm_model)
    found = yaml.safe_load(model_card(card).split("---\n")[1])
    assert found["library_name"] == "tvt_ray"
    assert "timm" not in found["tags"]
    assert "timm" not in sections(model_card(card))["Use"]


def test_the_accuracy_has_wilsons_interval(card):
    """180 of 200 by hand: (0.9 + 1.92 / 200 ± 1.96 · 0.02177) / (1 + 3.84 / 200) is 0.8925 ± 0.0419."""
    said = sections(model_card(card))["Accuracy"]
    assert "90.00 % of the test images are named right (200 images; 95 % interval 85.1 to 93.4)" in said
    assert "92.00 % of those that validate" in said
    assert "The teacher names 95.25 %" in said


def test_every_part_says_what_is_known(card):
    found = sections(model_card(card))
    assert "`imagefolder:photos`: 1,500 images to train on, 50 to validate, 200 to test" in found["Data"]
    assert "ants, bees, wasps" in found["Data"]
    assert found["Teacher"].startswith("`resnet20`. The student learned from it and from labels.")
    assert "5,000 architectures of 217 shapes were scored without training. 16 of them" in found["Search"]
    assert "ranked by `capacity`, and this one has place 3." in found["Search"]
    assert yaml.safe_load(found["Recipe"].split("```")[1].removeprefix("yaml")) == ORIGIN.recipe
    assert "Only 200 images test it" in found["Limits"]
    assert "No licence was chosen." in found["Licence"]
    assert found["Versions"].startswith("tvt_ray 0.1.0, torch 2.9.1.")
    assert card.space.describe(card.arch) in found["Architecture"]
    assert "/home/somebody" not in model_card(card)


def test_what_is_not_known_is_said(space):
    card = StudentCard(space, space.sample(random.Random(0)), CLASSES, {})
    found = sections(model_card(card))
    for title in ("Accuracy", "Data", "Teacher", "Search", "Recipe", "Versions"):
        assert found[title].strip() == UNKNOWN
    assert "interval" not in found["Limits"]


def test_the_origin_travels_in_arch_json(card):
    again = StudentCard.from_json(json.loads(json.dumps(card.to_json())))
    assert again == card
    assert StudentCard.from_json({**card.to_json(), "origin": None}).origin is None
    with pytest.raises((KeyError, TypeError, ValueError)):
        StudentCard.from_json({**card.to_json(), "origin": {"data": 3}})


def test_names_of_datasets_are_without_places():
    assert public_name("imagefolder:/home/me/photos/") == "imagefolder:photos"
    assert public_name("parquet:s3://bucket/cifar10") == "parquet:cifar10"
    assert public_name("digits") == "digits"


def test_a_class_name_is_neither_html_nor_a_link(card):
    names = ("<script>alert(1)</script>", "[x](javascript:alert(1))", "plain_name")
    text = model_card(dataclasses.replace(card, class_names=names))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert r"\[x\](javascript" in text
    assert "plain_name" in text


def test_a_card_s_class_names_are_shown_as_any_terminal_takes_them(card):
    entry = json.loads(json.dumps(card.to_json()))
    entry["class_names"][0] = "\x1b[31mred"
    assert StudentCard.from_json(entry).class_names[0] == r"\x1b[31mred"
