"""What every search space promises; a new row in SPACES is tested here without another line."""

import itertools
import json
import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import SMALL_SPACES
from tvt_ray.models import build_student
from tvt_ray.space import SPACES, AutoFormerArch, AutoFormerSpace, Budget, Cost, PiTArch, PiTSpace, as_space
from tvt_ray.space.base import parse_count


def test_every_space_has_a_small_variant_to_test_with():
    assert SMALL_SPACES.keys() == SPACES.keys()


def test_enumeration_is_the_whole_space_without_repeats(space):
    archs = list(space.enumerate())
    assert len(archs) == space.size() == len({space.arch_id(arch) for arch in archs})
    assert all(arch in space for arch in archs)


def test_samples_reach_the_whole_space(space):
    rng = random.Random(0)
    seen = {space.sample(rng) for _ in range(60 * space.size())}
    assert seen == set(space.enumerate())


def test_mutation_changes_an_architecture_within_the_space(space):
    rng = random.Random(1)
    for arch in itertools.islice(space.enumerate(), 40):
        child = space.mutate(arch, rng)
        assert child in space
        assert child != arch


def test_mutation_leads_from_any_architecture_to_any_other(space):
    rng, arch = random.Random(2), next(iter(space.enumerate()))
    seen = {arch}
    for _ in range(200 * space.size()):
        arch = space.mutate(arch, rng)
        seen.add(arch)
    assert len(seen) == space.size()


def test_crossover_takes_every_choice_from_a_parent(space):
    rng = random.Random(3)
    for _ in range(50):
        first, second = space.sample(rng), space.sample(rng)
        child = space.crossover(first, second, rng)
        assert child in space
        if first == second and isinstance(space, PiTSpace):
            assert child == first
        genes = zip(space.encode(first), space.encode(second), space.encode(child), strict=True)
        head = [(a, b, c) for a, b, c in genes][:2]  # width and depth: used by every architecture
        assert all(c in (a, b) for a, b, c in head)


def test_encoding_is_of_fixed_length_within_the_dimensions_and_decodes_back(space):
    for arch in itertools.islice(space.enumerate(), 100):
        indices = space.encode(arch)
        assert all(0 <= i < count for i, count in zip(indices, space.dimensions, strict=True))
        assert space.decode(indices) == arch


def test_json_goes_there_and_back_with_the_same_id(space):
    for arch in itertools.islice(space.enumerate(), 100):
        again = space.from_json(json.loads(json.dumps(space.to_json(arch))))
        assert again == arch
        assert space.arch_id(again) == space.arch_id(arch)


def test_arithmetic_equals_the_built_model(space):
    for arch in itertools.islice(space.enumerate(), 0, None, 5):
        student = build_student(space, arch, 7, seed=0)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            student(torch.zeros(1, 3, space.image_size, space.image_size))
        built = Cost(sum(p.numel() for p in student.parameters()), counter.get_total_flops() // 2)
        assert space.cost(arch, 7) == built


def test_smallest_and_largest_are_attained(space):
    costs = [space.cost(arch, 10) for arch in space.enumerate()]
    for bound, pick in ((space.smallest(10), min), (space.largest(10), max)):
        assert bound == Cost(pick(c.params for c in costs), pick(c.flops for c in costs))


def test_supernet_attention_is_counted_too():
    space = as_space(AutoFormerSpace(image_size=64, embed_dim=(96,), depth=(2, 3), head_dim=64, relative_position=True))
    for arch in itertools.islice(space.enumerate(), 0, None, 7):
        student = build_student(space, arch, 10, seed=0)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            student(torch.zeros(1, 3, 64, 64))
        built = Cost(sum(p.numel() for p in student.parameters()), counter.get_total_flops() // 2)
        assert space.cost(arch, 10) == built
    costs = [space.cost(arch, 10) for arch in space.enumerate()]
    assert space.smallest(10).params == min(c.params for c in costs)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_parameters_of_the_published_architectures(name, shared_data):
    space, lines = SPACES[name](), (shared_data / "vit_bench_101" / f"{name}_dev.jsonl").read_text().splitlines()
    for entry in map(json.loads, lines):
        arch = space.from_json(entry["arch"])
        assert space.cost(arch, 100).params == entry["params_100_classes"]
    student = build_student(as_space(space), arch, 100, seed=0)
    assert sum(p.numel() for p in student.parameters()) == entry["params_100_classes"]


def test_published_space_sizes_and_parameter_ranges():
    assert AutoFormerSpace().size() == 1_056_964_608
    assert AutoFormerSpace().smallest(100).params == 5_100_196
    assert PiTSpace().size() == 1600
    assert PiTSpace().smallest(100).params == 156_612
    assert PiTSpace().largest(100).params == 29_472_420
    assert PiTSpace().map_sizes == (27, 14, 7)


def test_ids_never_change_between_versions():
    autoformer = AutoFormerArch(192, (3, 4, 3, 4), (3.5, 4.0, 3.5, 3.5))
    assert AutoFormerSpace().arch_id(autoformer) == "autoformer-e192-d4-249efe0d6e58"
    assert PiTSpace().arch_id(PiTArch(32, (2, 6, 4), (2, 4, 8), 4)) == "pit-b32-d2.6.4-h2.4.8-m4-1fb6aebc4156"


def autoformer_entry(**changes):
    return {"embed_dim": 192, "depth": 12, "num_heads": [3] * 12, "mlp_ratio": [4] * 12, **changes}


def pit_entry(**changes):
    return {"base_dim": 16, "depth": [2, 6, 4], "num_heads": [2, 4, 8], "mlp_ratio": 4, **changes}


@pytest.mark.parametrize(
    ("space", "entry", "message"),
    [
        (AutoFormerSpace(), autoformer_entry(embed_dim=200), "192, 216, 240"),
        (AutoFormerSpace(), autoformer_entry(num_heads=[3] * 11), "length depth"),
        (AutoFormerSpace(), autoformer_entry(depth=2, num_heads=[3, 3], mlp_ratio=[4, 4]), "12, 13, 14"),
        (AutoFormerSpace(), {"embed_dim": 192}, "lacks depth"),
        (AutoFormerSpace(), [192], "JSON object"),
        (PiTSpace(), pit_entry(space="autoformer"), "belongs to"),
        (PiTSpace(), pit_entry(num_heads=[8, 4, 2]), "num_heads"),
        (PiTSpace(), pit_entry(depth=[2, 6]), "3 numbers"),
    ],
)
def test_wrong_architectures_are_refused_with_the_choices(space, entry, message):
    with pytest.raises(ValueError, match=message):
        space.from_json(entry)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 30},
        {"embed_dim": (100,), "num_heads": (3,)},
        {"depth": ()},
        {"mlp_ratio": (4.0, 4.0)},
        {"num_heads": (0,)},
    ],
)
def test_impossible_spaces_cannot_be_written(settings):
    with pytest.raises(ValueError, match=r"multiple|divide|at least one|once|positive"):
        AutoFormerSpace(**settings)


def test_budget_counts_read_as_people_write_them():
    budget = Budget.model_validate({"max_params": "6M", "max_flops": "1.5G", "min_params": 300e3})
    assert budget == Budget(max_params=6_000_000, max_flops=1_500_000_000, min_params=300_000)
    assert budget.admits(Cost(6_000_000, 1_500_000_000))
    assert not budget.admits(Cost(6_000_001, 1))
    assert not budget.admits(Cost(299_999, 1))
    assert parse_count("12") == 12
    with pytest.raises(ValueError, match="k, M or G"):
        Budget.model_validate({"max_params": "six"})
    with pytest.raises(ValueError, match="above"):
        Budget.model_validate({"max_params": 1, "min_params": 2})
