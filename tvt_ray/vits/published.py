"""Architectures as people designed them, at another size: what a search has to beat.

Proportions stay: blocks, heads, MLP ratio, and how widths grow. The width is the one whose parameters come nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvt_ray.vits.pit import PiTArch, PiTSpace
from tvt_ray.vits.space import Arch, Space
from tvt_ray.vits.vit import ViTArch, ViTSpace

DEIT_DEPTH, DEIT_HEADS, RATIO = 12, 3, 4
PIT_DEPTH, PIT_HEADS = (2, 6, 4), (2, 4, 8)
MAX_PATCHES = 196  # those of DeiT at 224 pixels
WIDEST_HEAD = 1024  # beyond, no size that is asked for here needs it


@dataclass(frozen=True)
class Design:
    """One architecture, in a space that holds no other."""

    space: Space
    arch: Arch

    def params(self, num_classes: int) -> int:
        """Parameters of the student, its classifier among them."""
        return self.space.cost(self.arch, num_classes).params


def deit_tiny(image_size: int, num_classes: int, params: int) -> Design:
    """DeiT-Ti's shape (Touvron et al. 2021, https://arxiv.org/abs/2012.12877) with about so many parameters.

    12 blocks, 3 heads, ratio 4, a class token, patches without overlap. At 224 pixels and 5.5 M it is DeiT-Ti itself.
    """
    patch = patch_of(image_size)

    def design(head_dim: int) -> Design:
        arch = ViTArch(DEIT_HEADS * head_dim, DEIT_DEPTH, DEIT_HEADS, RATIO, patch, "patch", "token")
        return Design(_only(ViTSpace, arch, image_size=image_size, head_dim=(head_dim,)), arch)

    return nearest(design, num_classes, params)


def pit_tiny(image_size: int, num_classes: int, params: int) -> Design:
    """PiT-Ti's shape (Heo et al. 2021, https://arxiv.org/abs/2103.16302) with about so many parameters.

    2, 6 and 4 blocks with 2, 4 and 8 heads, ratio 4. Patches are DeiT's and overlap by half, as its 16 and 8 pixels do.
    """
    patch = patch_of(image_size)

    def design(head_dim: int) -> Design:
        arch = PiTArch(head_dim, PIT_DEPTH, PIT_HEADS, RATIO)
        pixels = {"image_size": image_size, "patch_size": patch, "stride": max(patch // 2, 1)}
        return Design(_only(PiTSpace, arch, **pixels, num_heads=PIT_HEADS), arch)

    return nearest(design, num_classes, params)


def _only(space_type: type[Space], arch: Arch, **settings: Any) -> Space:
    """A space of one choice for each field, but for lists that are given."""
    lists = {name: (value,) for name, value in vars(arch).items() if name in space_type.model_fields}
    return space_type(**lists | settings)


def patch_of(image_size: int) -> int:
    """Pixels: the smallest patch that divides the image into at most MAX_PATCHES. 16 at 224 pixels, 4 at 32."""
    divisors = (size for size in range(1, image_size + 1) if image_size % size == 0)
    return next(size for size in divisors if (image_size // size) ** 2 <= MAX_PATCHES)


def nearest(design: Callable[[int], Design], num_classes: int, params: int) -> Design:
    """Of designs by the width of a head, the one whose parameters are nearest; they grow with it."""
    best = design(1)
    for head_dim in range(2, WIDEST_HEAD + 1):
        wider = design(head_dim)
        if abs(wider.params(num_classes) - params) >= abs(best.params(num_classes) - params):
            break
        best = wider
    return best
