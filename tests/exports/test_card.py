import json
import random

from tvt_ray.exports.card import StudentCard
from tvt_ray.vits import parse_space


def test_a_card_says_what_rebuilds_the_student_and_what_it_reached(space):
    arch = space.sample(random.Random(0))
    card = StudentCard(space, arch, ("a", "b", "c"), {"test_acc": 91.5})
    entry = json.loads(json.dumps(card.to_json()))
    assert entry["space"] == space.name
    assert entry["arch_id"] == space.arch_id(arch)
    assert (entry["params"], entry["flops"]) == space.cost(arch, 3)
    assert entry["class_names"] == ["a", "b", "c"]
    assert entry["results"] == {"test_acc": 91.5}
    assert entry["background"] == "white"
    assert parse_space(entry["space_settings"]) == space
    assert space.from_json(entry["arch"]) == arch
