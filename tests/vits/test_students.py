"""What every student promises; a new row in SPACES is tested here without another line."""

import itertools
import json
import random

import pytest
import torch

from tests.vits.inputs import images
from tvt_ray.proxies.tvt import l2_norm
from tvt_ray.vits import SPACES, build_student
from tvt_ray.vits.draws import draws_of


def test_logits_and_maps_have_the_promised_shapes(space):
    for arch in itertools.islice(space.enumerate(), 0, None, 7):
        student = build_student(space, arch, 5, seed=0)
        logits, maps = student.logits_and_maps(images(space), range(student.num_blocks))
        assert logits.shape == (2, 5)
        assert sorted(maps) == list(range(student.num_blocks))
        for features in maps.values():
            assert features.dim() == 4
            assert features.shape[0] == 2
            assert features.shape[2] == features.shape[3]


def test_maps_are_the_same_with_and_without_what_follows_them(space):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    with torch.no_grad():
        logits, maps = student.logits_and_maps(images(space), (0, 1))
        assert torch.equal(student.feature_maps(images(space), (1,))[1], maps[1])
        assert torch.equal(student(images(space)), logits)


def test_what_follows_the_last_map_is_not_computed(space):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    for name in {"head", "norm", "fc_norm"} & dict(student.named_children()).keys():
        delattr(student, name)  # would raise if they were needed
    last = student.num_blocks - 1
    assert student.feature_maps(images(space), (last,))[last].isfinite().all()


def test_weights_depend_on_seed_and_architecture_alone(space):
    rng = random.Random(4)
    arch, other = space.sample(rng), space.sample(rng)
    first = build_student(space, arch, 5, seed=0).state_dict()
    build_student(space, other, 5, seed=0)
    torch.manual_seed(99)
    again, reseeded = (build_student(space, arch, 5, seed=seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    weights = [key for key in first if key.endswith("weight") and "norm" not in key]
    assert all(not torch.equal(first[key], reseeded[key]) for key in weights)


def test_repeated_initialisations_are_told_apart(space):
    arch = space.sample(random.Random(4))
    first, second = (build_student(space, arch, 5, seed=0, draw=draw).state_dict() for draw in (0, 1))
    weights = [key for key in first if key.endswith("weight") and "norm" not in key]
    assert all(not torch.equal(first[key], second[key]) for key in weights)


def test_every_parameter_is_drawn(space):
    """When a student is made nothing is: a parameter that init_weights forgets would hold whatever memory held."""
    arch = space.sample(random.Random(0))
    student = space.build(arch, 5)
    for parameter in student.parameters():
        parameter.data.fill_(float("nan"))
    student.init_weights(draws_of(0, "any"))
    assert all(parameter.isfinite().all() for parameter in student.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected", "tolerance"), [("autoformer", [315.04, 455.75, 420.94], 0.2), ("pit", [410.3, 313.9], 0.7)]
)
def test_weight_norms_reach_the_published_values(name, expected, tolerance, shared_data):
    space = SPACES[name]()
    lines = (shared_data / "vit_bench_101" / f"{name}_dev.jsonl").read_text().splitlines()
    for line, value in zip(lines, expected, strict=False):
        arch = space.from_json(json.loads(line)["arch"])
        draws = [l2_norm(build_student(space, arch, 100, seed), None) for seed in range(5)]
        assert sum(draws) / 5 == pytest.approx(value, abs=tolerance)
        assert max(abs(draw - value) for draw in draws) < 2 * tolerance


def test_a_shared_student_is_the_same_and_an_own_one_may_be_trained(space):
    arch = space.sample(random.Random(0))
    shared = build_student(space, arch, 5, seed=0, shared=True)
    before = {key: value.clone() for key, value in shared.state_dict().items()}
    own = build_student(space, arch, 5, seed=0)
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    for parameter in own.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in shared.state_dict().items())


def test_what_weight_decay_leaves_out_is_there(space):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    assert student.no_weight_decay
    assert student.no_weight_decay <= dict(student.named_parameters()).keys()
