import itertools
import json
import random

import pytest
import torch

from tvt_ray.models import STUDENTS, build_student
from tvt_ray.models.draws import INIT_STD, draws_of
from tvt_ray.proxies.tvt import student_capability
from tvt_ray.space import SPACES, AutoFormerSpace, as_space


def images(space, count=2):
    return torch.randn(count, 3, space.image_size, space.image_size, generator=torch.Generator().manual_seed(0))


def test_every_space_has_a_model():
    assert STUDENTS.keys() == SPACES.keys()


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
    del student.head, student.norm  # would raise if they were needed
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


def test_every_parameter_is_drawn(space):
    """When a student is made nothing is: a parameter that init_weights forgets would hold whatever memory held."""
    arch = space.sample(random.Random(0))
    student = STUDENTS[space.name](space, arch, 5)
    for parameter in student.parameters():
        parameter.data.fill_(float("nan"))
    student.init_weights(draws_of(0, "any"))
    assert all(parameter.isfinite().all() for parameter in student.parameters())


def test_initialisation_is_the_published_one():
    space = as_space(AutoFormerSpace())
    student = build_student(space, space.sample(random.Random(0)), 100, seed=0)
    qkv = student.blocks[0].attention.qkv
    assert qkv.weight.std().item() == pytest.approx(INIT_STD, rel=0.01)
    assert not qkv.bias.any()
    bound = 1 / (3 * 16 * 16) ** 0.5
    assert student.patch_embed.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert student.norm.weight.eq(1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected", "tolerance"), [("autoformer", [315.04, 455.75, 420.94], 0.2), ("pit", [410.3, 313.9], 0.7)]
)
def test_weight_norms_reach_the_published_values(name, expected, tolerance, shared_data):
    space = as_space(SPACES[name]())
    lines = (shared_data / "vit_bench_101" / f"{name}_dev.jsonl").read_text().splitlines()
    for line, value in zip(lines, expected, strict=False):
        arch = space.from_json(json.loads(line)["arch"])
        draws = [student_capability(build_student(space, arch, 100, seed), None)["s"] for seed in range(5)]
        assert sum(draws) / 5 == pytest.approx(value, abs=tolerance)
        assert max(abs(draw - value) for draw in draws) < 2 * tolerance


def test_drop_path_acts_in_training_alone(space):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    with torch.no_grad():
        calm = student(images(space, 8))
        assert torch.equal(student(images(space, 8)), calm)
        student.train()
        torch.manual_seed(0)
        noisy = [student(images(space, 64)) for _ in range(2)]
    assert not torch.equal(*noisy)


def test_relative_positions_change_the_result():
    plain = as_space(AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2,)))
    relative = as_space(AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2,), relative_position=True))
    arch = plain.sample(random.Random(0))
    student = build_student(relative, arch, 5, seed=0)
    with torch.no_grad():
        before = student(images(plain))
        for block in student.blocks:
            block.attention.relative_keys.rows.zero_()
            block.attention.relative_keys.columns.zero_()
            block.attention.relative_values.rows.zero_()
            block.attention.relative_values.columns.zero_()
        after = student(images(plain))
        same = build_student(plain, arch, 5, seed=0)
        same.load_state_dict({k: v for k, v in student.state_dict().items() if "relative" not in k})
        assert not torch.allclose(before, after)
        assert torch.allclose(same(images(plain)), after, atol=1e-5)


def test_a_shared_student_is_the_same_and_an_own_one_may_be_trained(space):
    arch = space.sample(random.Random(0))
    shared = build_student(space, arch, 5, seed=0, shared=True)
    before = {key: value.clone() for key, value in shared.state_dict().items()}
    own = build_student(space, arch, 5, seed=0)
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    for parameter in own.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in shared.state_dict().items())


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_fused_blocks_give_what_plain_ones_give(space, precision, tolerance):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    last = student.num_blocks - 1
    with torch.inference_mode():
        plain = student.feature_maps(images(space), (0, last))
        fused = student.feature_maps(images(space).to(precision), (0, last), fused=True)
    for block, expected in plain.items():
        assert fused[block].dtype == precision
        assert (fused[block].float() - expected).abs().max() < tolerance * expected.abs().max()


def test_relative_positions_run_fused_as_well():
    space = as_space(AutoFormerSpace(image_size=32, patch_size=8, embed_dim=(24,), depth=(2,), relative_position=True))
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    with torch.inference_mode():
        plain, fused = (student.feature_maps(images(space), (1,), fused=fused)[1] for fused in (False, True))
    assert torch.allclose(plain, fused, atol=1e-5)
