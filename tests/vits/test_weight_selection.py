"""A student's weights out of a larger ViT's, for every space."""

import random

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tests.vits.expanded import expanded, same
from tests.vits.inputs import images
from tvt_ray.errors import UsageError
from tvt_ray.vits import build_student
from tvt_ray.vits.autoformer import AutoFormerSpace
from tvt_ray.vits.pit import PiTSpace
from tvt_ray.vits.vit import ViTArch, ViTSpace
from tvt_ray.vits.weight_selection import even, head_channels, heads_of, select_weights, stage_channels, take
from tvt_ray.vits.weight_source import parse_source

RELATIVE = AutoFormerSpace(
    image_size=32,
    patch_size=8,
    embed_dim=(24, 32),
    depth=(2,),
    num_heads=(2,),
    mlp_ratio=(2,),
    head_dim=8,
    relative_position=True,
)
SPACES = {**SMALL_SPACES, "relative": RELATIVE}
CLASSES = ("ants", "bees", "wasps")
ARCHS = [(name, seed) for name in SPACES for seed in range(4)]


def student_of(name, seed, weights=0):
    space = SPACES[name]
    return space, build_student(space, space.sample(random.Random(seed)), len(CLASSES), seed=weights)


def source_of(student, class_names=CLASSES):
    return parse_source("the source", student.state_dict(), heads_of(student), class_names)


def logits(space, student):
    with torch.no_grad():
        return student(images(space))


@pytest.mark.parametrize(("name", "seed"), ARCHS)
def test_a_student_of_the_sources_sizes_computes_what_it_does(name, seed):
    space, trained = student_of(name, seed, weights=1)
    _, student = student_of(name, seed)
    assert not torch.equal(logits(space, student), logits(space, trained))
    selected = select_weights(source_of(trained), student)
    assert selected.left == ()
    assert selected.sentence() == f"{len(student.state_dict())} of {len(student.state_dict())} tensors"
    assert (logits(space, student) - logits(space, trained)).abs().max() == 0


@pytest.mark.parametrize(("name", "seed"), ARCHS)
def test_of_a_vit_in_which_all_stands_twice_each_is_taken_once(name, seed):
    """Blocks, heads, and channels of tokens, heads and MLPs, which have to stay aligned for it."""
    _, trained = student_of(name, seed, weights=1)
    _, student = student_of(name, seed)
    source = parse_source("twice", *expanded(trained), CLASSES)
    assert [len(stage) for stage in source.stages] == [2 * n for n in (len(s) for s in source_of(trained).stages)]
    assert select_weights(source, student).left == ()
    assert same(student.state_dict(), trained.state_dict())


def test_the_classifier_stays_as_it_was_drawn_where_the_classes_are_others():
    _, trained = student_of("vit", 0, weights=1)
    _, student = student_of("vit", 0)
    before = student.head.weight.clone()
    selected = select_weights(source_of(trained).of_classes(("bees", "ants", "wasps")), student)
    assert selected.left == ("head.weight", "head.bias")
    assert "(head stay as drawn)" in selected.sentence()
    assert torch.equal(student.head.weight, before)


def vit(**choices):
    arch = ViTArch(**{"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "patch_size": 8} | choices)
    space = ViTSpace(
        image_size=32, embed_dim=(24, 48), depth=(2, 4), head_dim=(8, 12), mlp_ratio=(2,), patch_size=(4, 8)
    )
    return build_student(space, arch, 3, seed=choices.get("depth", 2))


@pytest.mark.parametrize(
    ("given", "wanted", "left"),
    [
        ({"pool": "token", "stem": "conv"}, {"pool": "token", "stem": "patch"}, {"patch_embed"}),
        ({"pool": "mean", "stem": "patch"}, {"pool": "token", "stem": "patch"}, {"cls_token"}),
        ({"pool": "token", "stem": "patch"}, {"pool": "mean", "stem": "patch"}, set()),
        ({"pool": "mean", "stem": "conv"}, {"pool": "mean", "stem": "conv"}, set()),
    ],
)
def test_what_the_source_has_no_match_for_stays_as_it_was_drawn(given, wanted, left):
    trained, student = vit(embed_dim=48, depth=4, num_heads=6, **given), vit(**wanted)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    selected = select_weights(source_of(trained), student)
    assert {name.split(".")[0] for name in selected.left} == left
    assert same({key: student.state_dict()[key] for key in selected.left}, {key: before[key] for key in selected.left})


def test_a_class_token_that_is_drawn_keeps_its_own_position():
    trained, student = vit(pool="mean", stem="patch"), vit(pool="token", stem="patch")
    before = student.pos_embed[:, :1].clone()
    select_weights(source_of(trained), student)
    assert torch.equal(student.pos_embed[:, :1], before)
    assert torch.equal(student.pos_embed[:, 1:], trained.pos_embed)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"embed_dim": 48, "num_heads": 6}, "it has 24 channels, me has 48"),
        ({"depth": 4}, "it has 2 blocks, me has 4"),
    ],
)
def test_a_source_that_is_smaller_is_refused(wanted, told):
    trained, student = vit(pool="token", stem="patch"), vit(pool="token", stem="patch", **wanted)
    with pytest.raises(UsageError, match=told) as error:
        select_weights(source_of(trained), student, "me")
    assert str(error.value).startswith("the source (vit, 2 blocks of 24 channels) is too small for me")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("given", "wanted"), [("pit", "vit"), ("autoformer", "pit")])
def test_a_pit_and_a_plain_vit_take_nothing_of_each_other(given, wanted):
    with pytest.raises(UsageError, match="a student of the space pit takes weights of a PiT"):
        select_weights(source_of(student_of(given, 0)[1]), student_of(wanted, 0)[1])


def test_a_pit_of_other_widths_and_depths_gives_a_smaller_one_its_weights():
    space = PiTSpace(
        image_size=32,
        patch_size=8,
        stride=4,
        base_dim=(8, 12),
        mlp_ratio=(1.5, 2),
        num_heads=(1, 2, 4),
        depth=((1, 1, 1), (2, 3, 2)),
    )
    large = build_student(space, space.largest_arch(3), 3, seed=1)
    for seed in range(8):
        student = build_student(space, space.sample(random.Random(seed)), 3, seed=0)
        assert select_weights(source_of(large), student).left == ()
        assert all(value.isfinite().all() for value in student.state_dict().values())


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [
        (6, 3, [0, 2, 4]),
        (5, 3, [0, 2, 4]),
        (4, 3, [0, 2, 3]),  # 1.5 is rounded to the even number, as torch.round does
        (12, 8, [0, 2, 3, 5, 6, 8, 9, 11]),
        (7, 1, [0]),
        (4, 4, [0, 1, 2, 3]),
    ],
)
def test_indices_are_evenly_spaced(count, wanted, chosen):
    assert even(count, wanted) == chosen


def test_they_are_those_of_the_papers_code():
    """Which has `arange(s) * (t // s)` where s divides t, else `round(linspace(0, t - 1, s))`.

    What lies just between two indices is rounded either way there, as float32 happens to have it.
    """
    for count in range(1, 65):
        for wanted in range(1, count + 1):
            steps = torch.arange(wanted) * (count // wanted)
            spaced = torch.linspace(0, count - 1, wanted)
            theirs = steps if count % wanted == 0 else spaced.round().long()
            between = (spaced - spaced.floor() - 0.5).abs() < 1e-4
            assert torch.equal(torch.tensor(even(count, wanted))[~between], theirs[~between])


def test_heads_are_chosen_and_then_channels_in_each():
    # Three heads of 4 channels to two of 2: heads 0 and 2, channels 0 and 2 of each.
    assert head_channels(12, 3, 4, 2) == ([0, 2, 8, 10], [0, 2])


@pytest.mark.parametrize(("wanted", "heads"), [(4, 4), (6, 1)])
def test_where_the_student_has_more_or_wider_heads_channels_are_chosen_without_them(wanted, heads):
    assert head_channels(8, 2, wanted, heads) == (even(8, wanted), None)


def test_a_stage_takes_what_a_pool_makes_of_the_channels_before_it():
    # Channels 0 and 2 of four; the pool makes 2c and 2c + 1 of channel c.
    assert stage_channels([4, 8], [2, 4]) == [[0, 2], [0, 1, 4, 5]]
    # Of three that it makes of each, the first and the last.
    assert stage_channels([4, 12], [2, 4]) == [[0, 2], [0, 2, 6, 8]]


def test_a_stage_that_grows_more_than_the_sources_takes_evenly_chosen_channels():
    assert stage_channels([4, 4], [1, 2]) == [[0], [0, 2]]


def test_entries_are_taken_along_each_axis_and_all_where_none_are_named():
    value = torch.arange(12).view(3, 4)
    assert take(value, [[0, 2], [1]]).tolist() == [[1], [9]]
    assert take(value, [None, [3]]).tolist() == [[3], [7], [11]]
