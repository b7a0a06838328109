"""Hand-designed shapes at another size."""

import pytest

from tvt_ray.vits.published import deit_tiny, patch_of, pit_tiny


def test_deit_tiny_is_itself_at_its_own_size():
    """5,717,416 parameters with 1,000 classes, as timm's deit_tiny_patch16_224."""
    design = deit_tiny(224, 1000, 5_700_000)
    assert (design.arch.embed_dim, design.arch.depth, design.arch.num_heads) == (192, 12, 3)
    assert design.arch.patch_size == 16
    assert design.params(1000) == 5_717_416


def test_pit_tiny_is_itself_at_its_own_size():
    """4,847,272 parameters, as timm's pit_ti_224."""
    design = pit_tiny(224, 1000, 4_900_000)
    assert design.arch.widths == (64, 128, 256)
    assert (design.space.patch_size, design.space.stride) == (16, 8)
    assert design.params(1000) == 4_847_272


@pytest.mark.parametrize("make", [deit_tiny, pit_tiny])
def test_the_nearest_width_is_taken(make):
    """Between two widths, the middle of their parameters is where the choice turns."""
    narrow = make(64, 2, 300_000)
    wide = next(each for params in range(300_000, 600_000, 2000) if (each := make(64, 2, params)) != narrow)
    middle = (narrow.params(2) + wide.params(2)) / 2
    assert make(64, 2, int(middle) - 1) == narrow
    assert make(64, 2, int(middle) + 1) == wide


@pytest.mark.parametrize("make", [deit_tiny, pit_tiny])
def test_what_is_too_small_gets_the_smallest(make):
    assert make(64, 2, 1).params(2) < make(64, 2, 100_000).params(2)


@pytest.mark.parametrize(("size", "patch"), [(224, 16), (96, 8), (64, 8), (48, 4), (32, 4), (28, 2), (37, 37), (8, 1)])
def test_patches_are_at_most_deits(size, patch):
    assert patch_of(size) == patch
