"""What a run says of its students."""

import dataclasses
import json

import pytest

from tvt_ray.data.datasets import load_dataset
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import StudentCard
from tvt_ray.exports.model_card import model_card
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.verbs.provenance import TrainedOn, origins_of, versions


def test_data_search_and_place_are_those_of_the_run(run_folder):
    config = run_folder.config()
    second = run_folder.ranking(config.score).entries[1].row
    run_folder.measurements().append([Measurement(second.arch_id, n, 0, 50.0, 1.0, "r") for n in (1, 2)])
    origin = origins_of(run_folder, config, {"a": (second.arch_id, {"epochs": 3})}, {"torch": "2"})["a"]
    assert origin.data["name"] == "imagefolder:photos"  # without its folder
    assert {name: origin.data[name] for name in ("train", "val", "test")} == {"train": 14, "val": 2, "test": 4}
    assert origin.search["place"] == 2
    assert (origin.search["score"], origin.search["num_scored"], origin.search["num_measured"]) == ("capacity", 3, 1)
    assert (origin.recipe, origin.versions) == ({"epochs": 3}, {"torch": "2"})


def test_a_choice_by_short_trainings_is_said(run_folder):
    config, rows = run_folder.config(), run_folder.rows().read()
    chosen, other = rows[1].arch_id, rows[0].arch_id
    (run_folder.path / "bodies.json").write_text(json.dumps([{"arch_id": chosen}, {"arch_id": other}]))
    found = origins_of(run_folder, config, {"a": (chosen, {}), "b": (other, {})}, {})
    assert found["a"].search["num_short"] == 2
    assert "num_short" not in found["b"].search
    card = StudentCard(config.space, config.space.from_json(rows[1].arch), ("ants", "bees"), {}, origin=found["a"])
    assert "Short trainings of 2 on frozen stages chose it." in model_card(card)
    (run_folder.path / "bodies.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"bodies\.json is damaged"):
        origins_of(run_folder, config, {}, {})


def test_an_architecture_that_the_run_never_read_has_no_place(run_folder):
    origin = origins_of(run_folder, run_folder.config(), {"a": ("another", {})}, {})["a"]
    assert origin.search["place"] is None
    assert origin.search["num_scored"] == 3


def test_a_run_without_rows_ranks_nothing(run_folder, tmp_path):
    origins = origins_of(RunFolder(tmp_path / "empty"), run_folder.config(), {"a": ("a", {})}, {})
    assert dataclasses.asdict(origins["a"]) == {"data": {}, "search": {}, "recipe": {}, "versions": {}}


def test_a_student_of_an_earlier_version_gets_what_its_run_still_says(run_folder):
    config = run_folder.config()
    best = run_folder.ranking(config.score).entries[0].row
    card = StudentCard(config.space, config.space.from_json(best.arch), ("ants", "bees"), {})
    found = TrainedOn.of(run_folder.distill_folder / best.arch_id, card).card_with_origin()
    assert found.origin.search["place"] == 1
    assert found.origin.data["test"] == 4
    assert TrainedOn(found, run_folder, config).card_with_origin() is found
    assert TrainedOn(card, run_folder).card_with_origin() is card
    assert dataclasses.replace(found, origin=None) == card


def test_versions_are_of_what_trains():
    import torch

    assert torch.__version__.startswith(versions()["torch"])
    assert {"tvt_ray", "python", "timm", "ray"} <= versions().keys()


def test_images_that_validated_count_as_trained_on_where_they_were_learned_from(run_folder, photos):
    """In the run's own dataset, and in another that holds the same files."""
    config, identity = run_folder.config(), DataIdentity.load(run_folder.data_file)
    arch = config.space.from_json(run_folder.rows().read()[0].arch)
    data = load_dataset(config.data)
    other = dataclasses.replace(data, test=data.val)  # of which every image validated
    for learned_from, seen in (("train", False), ("train and val", True)):
        card = StudentCard(config.space, arch, ("ants", "bees"), {"learned_from": learned_from})
        trained_on = TrainedOn(card, run_folder, config, identity)
        (own,) = trained_on.notes(data, data.fingerprint(), "val", {"val": data.val})
        assert own.startswith("these images were trained on") == seen
        notes = trained_on.notes(other, "another", "test", {"test": other.test})
        every = f"{len(data.val)} of the {len(data.val)} images were trained on"
        assert any(note.startswith(every) for note in notes) == seen
