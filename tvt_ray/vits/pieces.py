"""What a student is made of, and what that costs. A piece is one class: what it computes, its cost, how it is timed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # by which students' images are normalised
IN_CHANNELS = 3  # every image is RGB; grey scans are repeated over the channels


class Cost(NamedTuple):
    """What an architecture costs, known before it is built."""

    params: int  # weights and biases, classifier included
    flops: int  # multiply-accumulates of matrix products and convolutions for one image, as ViT papers count


def linear_cost(tokens: int, inputs: int, outputs: int) -> Cost:
    """A biased Linear applied to `tokens` positions."""
    return Cost(inputs * outputs + outputs, tokens * inputs * outputs)


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions along one axis after a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def add_costs(costs: Iterable[Cost]) -> Cost:
    """Parameters and FLOPs of all of them together."""
    return Cost(*map(sum, zip(*costs, strict=True)))


class Part(NamedTuple):
    """A piece of some sizes, not yet built. The same few parts make up a whole space, so each has to be timed once."""

    kind: str  # parts of equal kind and sizes take equally long
    sizes: tuple[int, ...]  # the piece's arguments
    cost: Cost
    activations: int  # numbers that its operations read and write for one image, weights aside
    input_shape: tuple[int, ...]  # without the axis of images
    piece: Any  # its class


class Piece(nn.Module):
    """A block, or what comes before the blocks, between, or after. `part` takes the arguments that the class takes."""

    kind: ClassVar[str]

    @classmethod
    def timed(cls, *sizes: int) -> nn.Module:
        """The module that is timed; its weights hold whatever memory held."""
        return cls(*sizes)

    def infer(self, tokens: Tensor) -> Tensor:
        """What forward gives in evaluation mode, in fused kernels that no gradient and no hook sees.

        In the tokens' precision, whatever that of the weights.
        """
        raise NotImplementedError
