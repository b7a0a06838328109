"""From pixels to tokens: what stands before the blocks. One is a class, and where a space chooses it a row of `STEMS`.

Shape suffixes: B = images, T = tokens, C = channels, H, W = map axes, S = pixels along an axis.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from torch import Tensor, nn

from tvt_ray.errors import UsageError
from tvt_ray.vits import kernels
from tvt_ray.vits.layers import NORM_EPS, Conv2d
from tvt_ray.vits.pieces import IN_CHANNELS, Cost, Part, Piece, add_costs, conv_output_size, linear_cost
from tvt_ray.vits.trunks import Trunk, trunk_facts

HALVING = {"kernel": 3, "stride": 2, "padding": 1}  # of a convolutional stem
LEAST_CHANNELS = 16  # of a convolution in it: fewer are too few to normalise over

MOST_STAGES = 9  # that a stem is named after
STAGES = re.compile(r"stage([1-9])")


def check_stem(name: str) -> str:
    """The name again. Raises ValueError for a stem that there is not."""
    if name not in STEMS and not STAGES.fullmatch(name):
        raise ValueError(f"a stem is {', '.join(STEMS)}, or stageK, the first K stages of the backbone; got {name!r}")
    return name


# patch, conv, or stageK: the first K stages of the space's backbone
StemName: TypeAlias = Annotated[str, AfterValidator(check_stem)]


class ConvShape(NamedTuple):
    """A biased convolution of square kernels."""

    inputs: int  # channels
    outputs: int
    kernel: int  # pixels along one axis, as for stride and padding
    stride: int
    padding: int


class Stem(Piece):
    """Convolutions from pixels to tokens (B, H x W, C); the last is bare, those before it have a norm and ReLU.

    Sizes: pixels along an axis, class tokens, vectors of positions, then the numbers of each convolution. Class tokens
    and positions stand beside it, at the top of a student: `Embedding` has both.
    """

    last = "proj"  # what timm calls the last convolution
    first_conv: ClassVar[str]  # and the first, which it changes for images of other than three channels
    positions_are_a_map = False  # (1, C, H, W), not (1, T, C)

    def __init__(self, image_size: int, num_prefix: int, num_positions: int, *numbers: int) -> None:
        super().__init__()
        *first, last = _conv_shapes(numbers)
        self.backbone = self._backbone(first)
        self.add_module(self.last, Conv2d(*last))

    def _backbone(self, first: Sequence[ConvShape]) -> NormedConvs | Trunk | None:
        """What stands before the last convolution."""
        return NormedConvs(first) if first else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, H x W, C)."""
        features = images if self.backbone is None else self.backbone(images)
        return tokens_of(self.get_submodule(self.last)(features))

    def infer(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, H x W, C)."""
        features = images if self.backbone is None else self.backbone.infer(images)
        return tokens_of(kernels.conv(features, self.get_submodule(self.last)))  # type: ignore[arg-type]

    @classmethod
    def check(cls, patch_size: int) -> None:
        """Raises ValueError for patches that it cannot make."""

    @classmethod
    def convs(cls, width: int, patch_size: int) -> tuple[ConvShape, ...]:
        """From pixels to one token of `width` channels for each patch."""
        raise NotImplementedError

    @classmethod
    @functools.cache
    def of_patches(cls, image_size: int, width: int, patch_size: int, num_prefix: int) -> Part:
        """The part for square patches, where every token has a position, class tokens too."""
        num_positions = (image_size // patch_size) ** 2 + num_prefix
        return cls.part(image_size, num_prefix, num_positions, *itertools.chain(*cls.convs(width, patch_size)))

    @classmethod
    def timed(cls, *sizes: int) -> nn.Module:
        """The stem with class tokens and positions."""
        return Embedding(cls, *sizes)

    @classmethod
    @functools.cache
    def part(cls, image_size: int, num_prefix: int, num_positions: int, *numbers: int) -> Part:
        """Convolutions and what joins them: norms; class tokens and positions."""
        convs, size, values = _conv_shapes(numbers), image_size, 0
        width, norms = convs[-1].outputs, sum(2 * each.outputs for each in convs[:-1])
        costs = [Cost((num_prefix + num_positions) * width + norms, 0)]
        for inputs, outputs, kernel, stride, padding in convs:
            before, size = size, conv_output_size(size, kernel, stride, padding)
            costs.append(linear_cost(size**2, inputs * kernel**2, outputs))
            values += before**2 * inputs + size**2 * outputs
        values += 5 * (size**2 + num_prefix) * width
        sizes, shape = (image_size, num_prefix, num_positions, *numbers), (IN_CHANNELS, image_size, image_size)
        return Part(cls.kind, sizes, add_costs(costs), values, shape, cls)


class Patches(Stem):
    """A stem of one convolution, whose kernel is a patch."""

    kind = "patches"
    first_conv = "proj"

    @classmethod
    def convs(cls, width: int, patch_size: int) -> tuple[ConvShape, ...]:
        """One, whose stride is its kernel: patches do not overlap."""
        return (ConvShape(IN_CHANNELS, width, patch_size, patch_size, 0),)


class OverlappingPatches(Patches):
    """PiT's: the stride is smaller than the kernel. Patches have positions, the class token has none."""

    last = first_conv = "conv"
    positions_are_a_map = True


class ConvStem(Stem):
    """Convolutions of 3 x 3 that halve the map (Xiao et al. 2021, https://arxiv.org/abs/2106.14881), and a bare one.

    They halve it as often as the patch size can be halved, and double the channels up to `width`. The last takes what
    is left of the patch: 1 x 1 where the patch size is a power of two. Where it is none, as 12, the last is the one
    that widens to `width`, and those before it end at half of that.
    """

    kind = "conv_stem"
    first_conv = "backbone.convs.0"

    @classmethod
    def check(cls, patch_size: int) -> None:
        """Raises ValueError for odd patches, which nothing halves."""
        if patch_size % HALVING["stride"]:
            raise ValueError(f"the stem 'conv' halves the image, so every patch_size is even; got {patch_size}")

    @classmethod
    def convs(cls, width: int, patch_size: int) -> tuple[ConvShape, ...]:
        """Those that halve the map, and the bare one."""
        halvings = (patch_size & -patch_size).bit_length() - 1
        rest = patch_size >> halvings
        widest = width >> int(rest > 1)
        widths = [max(widest >> later, LEAST_CHANNELS) for later in reversed(range(halvings))]
        convs = [ConvShape(*pair, **HALVING) for pair in itertools.pairwise([IN_CHANNELS, *widths])]
        return (*convs, ConvShape(widths[-1], width, rest, rest, 0))


class NormedConvs(nn.Module):
    """Convolutions, each with LayerNorm over channels and ReLU after it.

    The paper of the convolutional stem has BatchNorm. That would be no norm at all in an untrained student, whose
    statistics are unset. What a training learns would depend on how its batches are shared out to workers, and on the
    last, smaller one. LayerNorm sees one position of one image, and proxies treat it as they do the blocks' own. Two
    more deviations: convolutions have biases, and no block is dropped in exchange for the stem: depth is a choice.
    """

    def __init__(self, shapes: Sequence[ConvShape]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv2d(*shape) for shape in shapes)
        self.norms = nn.ModuleList(nn.LayerNorm(shape.outputs, NORM_EPS) for shape in shapes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, H, W)."""
        features = _laid_out(images)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = F.relu(norm(conv(features).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return features

    def infer(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, H, W)."""
        features = _laid_out(images)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            normed = kernels.norm(kernels.conv(features, conv).permute(0, 2, 3, 1), norm)  # type: ignore[arg-type]
            features = normed.relu_().permute(0, 3, 1, 2)
        return features


STEMS: dict[str, type[Stem]] = {"patch": Patches, "conv": ConvStem}


class StageStem(Stem):
    """The first stages of a ConvNet of timm's, and one convolution from their map to tokens.

    Each cut of each network is a class of its own, which `stem_of` makes: parts of one kind are of one cut.
    """

    first_conv = "backbone"
    network: ClassVar[str]  # as timm has it
    num_stages: ClassVar[int]

    def _backbone(self, first: Sequence[ConvShape]) -> Trunk:
        return Trunk(self.network, self.num_stages)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S), or what the stages made of images, (B, C, H, W) -> (B, H x W, C)."""
        if images.shape[1] == IN_CHANNELS:
            return super().forward(images)
        return tokens_of(self.get_submodule(self.last)(images))

    @classmethod
    def check(cls, patch_size: int) -> None:
        """Raises ValueError for patches that the stages' map does not divide into."""
        try:
            stride = trunk_facts(cls.network, cls.num_stages).stride
        except UsageError as error:
            raise ValueError(str(error)) from None
        if patch_size % stride:
            raise ValueError(
                f"the stem 'stage{cls.num_stages}' of {cls.network} has a place every {stride} pixels, so every "
                f"patch_size is a multiple of that; got {patch_size}"
            )

    @classmethod
    def convs(cls, width: int, patch_size: int) -> tuple[ConvShape, ...]:
        """The one from the stages' map to tokens."""
        facts = trunk_facts(cls.network, cls.num_stages)
        kernel = patch_size // facts.stride
        return (ConvShape(facts.channels, width, kernel, kernel, 0),)

    @classmethod
    @functools.cache
    def part(cls, image_size: int, num_prefix: int, num_positions: int, *numbers: int) -> Part:
        """The stages, and the convolution on their map; class tokens and positions."""
        (conv,), facts = _conv_shapes(numbers), trunk_facts(cls.network, cls.num_stages, image_size)
        size = image_size // facts.stride // conv.stride
        costs = [
            Cost(facts.params, facts.flops),
            Cost((num_prefix + num_positions) * conv.outputs, 0),
            linear_cost(size**2, conv.inputs * conv.kernel**2, conv.outputs),
        ]
        values = facts.activations + size**2 * conv.inputs * conv.kernel**2 + size**2 * conv.outputs
        values += 5 * (size**2 + num_prefix) * conv.outputs
        sizes, shape = (image_size, num_prefix, num_positions, *numbers), (IN_CHANNELS, image_size, image_size)
        return Part(cls.kind, sizes, add_costs(costs), values, shape, cls)


@functools.cache
def stem_of(name: str, backbone: str | None) -> type[Stem]:
    """A row of STEMS, or the stages of a ConvNet of timm's. Raises ValueError for stages without a backbone."""
    match = STAGES.fullmatch(name)
    if match is None:
        return STEMS[name]
    if backbone is None:
        raise ValueError(f"the stem {name!r} needs a backbone, such as tf_efficientnet_lite0")
    number = int(match[1])
    made = {"kind": f"{backbone}.{name}", "network": backbone, "num_stages": number}
    return type(f"StageStem_{backbone}_{number}", (StageStem,), {"__module__": __name__, **made})


class Embedding(nn.Module):
    """A stem with class token and positions, under the names that these have at the top of a student."""

    def __init__(self, stem: type[Stem], image_size: int, num_prefix: int, num_positions: int, *numbers: int) -> None:
        super().__init__()
        width, side = _conv_shapes(numbers)[-1].outputs, math.isqrt(num_positions)
        self.patch_embed = stem(image_size, num_prefix, num_positions, *numbers)
        self.cls_token = nn.Parameter(torch.empty(1, num_prefix, width)) if num_prefix else None
        shape = (width, side, side) if stem.positions_are_a_map else (num_positions, width)
        self.pos_embed = nn.Parameter(torch.empty(1, *shape))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, T, C)."""
        return embed(self.patch_embed(images), self.cls_token, self.pos_embed, images.dtype)


def embed(patches: Tensor, cls_token: Tensor | None, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Puts the class token first and adds positions, both as `dtype`: (B, H x W, C) -> (B, T, C), contiguous."""
    positions, is_map = positions.to(dtype), positions.ndim == 4
    if is_map:
        patches = tokens_of(patches.mT.reshape(-1, *positions.shape[1:]) + positions)
    if cls_token is not None:
        patches = torch.cat([cls_token.to(dtype).expand(patches.shape[0], -1, -1), patches], 1)
    return (patches if is_map else patches + positions).contiguous()


def tokens_of(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H x W, C)."""
    return features.flatten(2).transpose(1, 2)


def _laid_out(images: Tensor) -> Tensor:
    """Channels last in memory: maps then go from a norm to a convolution and back without being copied."""
    return images.contiguous(memory_format=torch.channels_last)


def _conv_shapes(numbers: Sequence[int]) -> list[ConvShape]:
    size = len(ConvShape._fields)
    return [ConvShape(*numbers[i : i + size]) for i in range(0, len(numbers), size)]
