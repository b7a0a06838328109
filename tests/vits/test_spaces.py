"""What every search space promises; a new row in SPACES is tested here without another line."""

import collections
import itertools
import json
import math
import random
import re

import pytest
from pydantic import BaseModel, ValidationError

from tests.conftest import REPO, SMALL_SPACES
from tvt_ray.vits import SPACES, SpaceField, build_student, parse_space
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.pieces import Cost
from tvt_ray.vits.pit import PiTSpace


def test_every_space_has_a_small_variant_to_test_with():
    assert SMALL_SPACES.keys() == SPACES.keys()


def test_a_space_is_called_as_its_row(space):
    assert type(space) is SPACES[space.name]


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


def test_a_space_of_one_has_nothing_to_mutate_to(space):
    lists = {name: value[:1] for name, value in space.model_dump().items() if isinstance(value, tuple)}
    (arch,) = (one := space.model_copy(update=lists)).enumerate()
    with pytest.raises(ValueError, match="single architecture"):
        one.mutate(arch, random.Random(0))


def test_crossover_takes_every_choice_from_a_parent(space):
    rng = random.Random(3)
    for _ in range(50):
        first, second = space.sample(rng), space.sample(rng)
        child = space.crossover(first, second, rng)
        assert child in space
        if first == second and not isinstance(space, AutoFormerSpace):
            assert child == first
        genes = zip(space.encode(first), space.encode(second), space.encode(child), strict=True)
        head = [(a, b, c) for a, b, c in genes][:2]  # width and depth: used by every architecture
        assert all(c in (a, b) for a, b, c in head)


def test_encoding_is_of_fixed_length_within_the_dimensions_and_decodes_back(space):
    for arch in itertools.islice(space.enumerate(), 100):
        indices = space.encode(arch)
        assert all(0 <= i < count for i, count in zip(indices, space.dimensions, strict=True))
        assert space.decode(indices) == arch


def test_features_are_finite_and_have_the_same_names_for_all(space):
    features = [space.features(arch) for arch in itertools.islice(space.enumerate(), 200)]
    assert len({tuple(each) for each in features}) == 1
    assert all(math.isfinite(value) for each in features for value in each.values())
    assert len({tuple(each.values()) for each in features}) > 1


def test_json_goes_there_and_back_with_the_same_id(space):
    for arch in itertools.islice(space.enumerate(), 100):
        again = space.from_json(json.loads(json.dumps(space.to_json(arch))))
        assert again == arch
        assert space.arch_id(again) == space.arch_id(arch)


def test_an_id_can_name_a_folder(space):
    for arch in space.enumerate():
        assert re.fullmatch(r"[A-Za-z0-9.-]+", space.arch_id(arch))
        assert space.arch_id(arch).startswith(f"{space.name}-")


def test_architectures_of_one_shape_cost_the_same(space):
    costs = collections.defaultdict(set)
    for arch in space.enumerate():
        costs[space.shape(arch)].add(space.cost(arch, 10))
    assert all(len(different) == 1 for different in costs.values())


def test_blocks_are_counted_as_they_are_built(space):
    for arch in space.enumerate():
        assert space.num_blocks(arch) == build_student(space, arch, 5, seed=0).num_blocks


def test_every_architecture_is_described_in_one_line_of_its_own(space):
    archs = list(space.enumerate())
    lines = {space.describe(arch) for arch in archs}
    assert len(lines) == len(archs)
    assert not any("\n" in line for line in lines)


def test_smallest_and_largest_are_attained(space):
    costs = [space.cost(arch, 10) for arch in space.enumerate()]
    for bound, pick in ((space.smallest(10), min), (space.largest(10), max)):
        assert bound == Cost(pick(c.params for c in costs), pick(c.flops for c in costs))


def test_the_largest_architecture_has_the_most_flops(space):
    largest = space.largest_arch(10)
    assert largest in space
    assert space.cost(largest, 10).flops == space.largest(10).flops


def test_settings_go_there_and_back(space):
    again = parse_space(json.loads(json.dumps(space.model_dump(mode="json"))))
    assert again == space
    assert parse_space(space) is space


def test_a_field_holds_any_space(space):
    class Holder(BaseModel):
        space: SpaceField

    holder = Holder(space=space.model_dump(mode="json"))
    assert holder.space == space
    assert Holder.model_validate_json(holder.model_dump_json()) == holder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "swin"}, r"unknown search space 'swin'; choices: autoformer, pit, vit"),
        ({"name": ["pit"]}, r"unknown search space \['pit'\]; choices: autoformer, pit, vit"),
        ({}, r"unknown search space None; choices: autoformer, pit, vit"),
        ("pit", r"a space is a mapping of settings with a name; got 'pit'"),
        (None, r"a space is a mapping of settings with a name; got None"),
        (PiTSpace, r"a space is a mapping of settings with a name; got <class"),
    ],
)
def test_what_is_no_space_is_refused_with_the_choices(settings, message):
    with pytest.raises(ValueError, match=message):
        parse_space(settings)


def test_a_wrong_setting_is_named():
    with pytest.raises(ValidationError, match="heads\n  Extra inputs are not permitted"):
        parse_space({"name": "autoformer", "heads": [3]})
    with pytest.raises(ValidationError, match="choice list names each value once"):
        parse_space({"name": "pit", "base_dim": [16, 16]})


def test_settings_that_are_left_out_are_the_published_ones():
    assert parse_space({"name": "autoformer"}) == AutoFormerSpace()
    assert parse_space({"name": "pit"}) == PiTSpace()


@pytest.mark.parametrize("name", SPACES)
def test_the_page_of_spaces_has_an_architecture_of_each(name):
    text = (REPO / "docs" / "spaces.md").read_text()
    (line,) = re.findall(rf'^{{"space": "{name}".*$', text, re.MULTILINE)
    assert SPACES[name]().from_json(json.loads(line)) in SPACES[name]()


def test_every_architecture_fills_the_same_columns_of_a_table(space):
    archs = list(space.enumerate())
    rows = [space.columns(arch) for arch in archs]
    assert len({tuple(row) for row in rows}) == 1
    assert len({tuple(row.values()) for row in rows}) == len(archs)


def test_a_copy_with_other_settings_is_another_space(space):
    """Whatever of the first was asked for, and so kept, before."""
    assert len(space.dimensions) == len(space.encode(next(space.enumerate())))
    copy = space.model_copy(update={"depth": space.depth[:1]})
    again = type(space).model_validate(copy.model_dump())
    assert copy == again != space
    assert copy.dimensions == again.dimensions != space.dimensions
    assert copy.size() == again.size() < space.size()
