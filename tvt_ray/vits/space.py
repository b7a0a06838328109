"""What every search space promises."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias

from tvt_ray.vits.costs import Cost
from tvt_ray.vits.parts import Part

# An architecture: frozen and hashable, of the kind that its space makes. Only the space looks inside.
Arch: TypeAlias = Any


class Space(Protocol):
    """A finite set of architectures. Spaces are immutable pydantic models; randomness is passed in.

    A space also encodes an architecture as a fixed-length tuple of choice indices: position i counts from 0 to
    `dimensions[i] - 1`. Samplers that know nothing of architectures work on those. Positions that an architecture does
    not use (blocks beyond its depth) are encoded as 0 and ignored when decoding.
    """

    @property
    def name(self) -> str:
        """Its row in SPACES."""
        ...

    @property
    def image_size(self) -> int:
        """Of what its students see, in pixels."""
        ...

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Choices at each position of the encoding."""
        ...

    def size(self) -> int:
        """How many architectures there are."""
        ...

    def sample(self, rng: random.Random) -> Arch:
        """One at random."""
        ...

    def mutate(self, arch: Arch, rng: random.Random) -> Arch:
        """Another one near `arch`. Raises ValueError where there is no other."""
        ...

    def crossover(self, first: Arch, second: Arch, rng: random.Random) -> Arch:
        """One whose choices are either parent's."""
        ...

    def enumerate(self) -> Iterator[Arch]:
        """All of them, in a fixed order."""
        ...

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """Its choice indices. Raises ValueError for an architecture of another space."""
        ...

    def decode(self, indices: Sequence[int]) -> Arch:
        """The architecture of these choice indices."""
        ...

    def __contains__(self, arch: object) -> bool: ...

    def arch_id(self, arch: Arch) -> str:
        """Names the architecture: letters, digits, dots and hyphens, so that it can name a folder."""
        ...

    def shape(self, arch: Arch) -> str:
        """Names all that scores can tell apart. Architectures of one shape are copies to whoever chooses by a score."""
        ...

    def describe(self, arch: Arch) -> str:
        """Width, depth, heads and MLP ratios in a few words."""
        ...

    def columns(self, arch: Arch) -> dict[str, str]:
        """The same for a table: its columns, in order."""
        ...

    def num_blocks(self, arch: Arch) -> int:
        """Transformer blocks over all stages."""
        ...

    def features(self, arch: Arch) -> dict[str, float]:
        """Its shape in numbers, the same names for all: base-2 logarithms, so that 1 more is twice as much.

        A name that begins with `has_` is 1 where the architecture has that, else 0.
        """
        ...

    def to_json(self, arch: Arch) -> dict[str, Any]:
        """As files hold it."""
        ...

    def from_json(self, obj: Mapping[str, Any]) -> Arch:
        """Raises ValueError that says which entry is wrong and what is allowed."""
        ...

    def cost(self, arch: Arch, num_classes: int) -> Cost:
        """What it costs with a classifier of so many classes, equal to the built student's."""
        ...

    def parts(self, arch: Arch, num_classes: int) -> tuple[Part, ...]:
        """What its student computes, one after the other; together they cost what `cost` says."""
        ...

    def smallest(self, num_classes: int) -> Cost:
        """The fewest parameters and the fewest FLOPs that any architecture has."""
        ...

    def largest(self, num_classes: int) -> Cost:
        """The most of either."""
        ...

    def largest_arch(self, num_classes: int) -> Arch:
        """The architecture of most FLOPs."""
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """As pydantic gives it."""
        ...

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """As pydantic does it."""
        ...
