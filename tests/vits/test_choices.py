"""Architectures as tuples of choice indices."""

import random
from dataclasses import dataclass
from typing import Annotated

import pytest

from tvt_ray.vits.choices import Choice, check_choice, check_keys, choices_of, digest, mutate_indices

DIMENSIONS = (3, 1, 2, 4)


def test_a_mutation_is_another_tuple_within_the_dimensions():
    rng, start = random.Random(0), (0, 0, 1, 3)
    for _ in range(200):
        child = mutate_indices(start, DIMENSIONS, rng)
        assert child != start
        assert all(0 <= index < count for index, count in zip(child, DIMENSIONS, strict=True))


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_choice_is_found_or_refused_with_the_others():
    assert check_choice("depth", 13, (12, 13)) == 1
    with pytest.raises(ValueError, match="depth is 14, allowed: 12, 13"):
        check_choice("depth", 14, (12, 13))


def test_the_space_may_stand_beside_the_keys():
    check_keys("pit", {"a": 1, "space": "pit"}, ("a",))
    with pytest.raises(ValueError, match="belongs to the space 'autoformer', the search space is 'pit'"):
        check_keys("pit", {"a": 1, "space": "autoformer"}, ("a",))


@dataclass(frozen=True)
class Arch:
    ratios: Annotated[tuple[float, ...], Choice("ratio", per="block")]
    width: int
    pool: Annotated[str, Choice(flags=("mean",))]


def test_fields_of_an_architecture_are_choices_those_of_blocks_come_last():
    assert choices_of(Arch) == (
        ("width", Choice("width")),
        ("pool", Choice("pool", flags=("mean",))),
        ("ratios", Choice("ratio", per="block")),
    )
