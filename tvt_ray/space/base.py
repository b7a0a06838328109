"""What every search space promises, the budget, and the pieces that spaces share."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

IN_CHANNELS = 3  # every image is RGB; grey scans are repeated over the channels

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


class Cost(NamedTuple):
    """What an architecture costs, known before it is built."""

    params: int  # weights and biases, classifier included
    flops: int  # multiply-accumulates of matrix products and convolutions for one image, as ViT papers count


def parse_count(value: Any) -> Any:
    """Reads 6M, 1.5G, 300k or a plain number as a count; anything else passes through for pydantic to refuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgb]?)\s*", value.lower())
        if not match:
            raise ValueError(f"a count is a number with an optional k, M or G, as in 6M or 1.5G; got {value!r}")
        return round(float(match[1]) * _SUFFIXES[match[2]])
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def format_count(count: float) -> str:
    """12345678 -> '12.3M'."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{suffix}" if count < 1e3 * limit else f"{count / limit:.0f}{suffix}"
    return f"{count:.0f}"


Count = Annotated[int, BeforeValidator(parse_count), Field(ge=0)]


class Budget(BaseModel):
    """Limits on parameters and FLOPs (multiply-accumulates for one image), ends included; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_params: Count | None = None
    max_params: Count | None = None
    min_flops: Count | None = None
    max_flops: Count | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Budget:
        for name in ("params", "flops"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} {low} is above max_{name} {high}")
        return self

    def admits(self, cost: Cost) -> bool:
        return _within(cost.params, self.min_params, self.max_params) and _within(
            cost.flops, self.min_flops, self.max_flops
        )

    def __str__(self) -> str:
        parts = [f"{k} {v:,}" for k, v in self.model_dump(exclude_none=True).items()]
        return ", ".join(parts) or "no budget"


def _within(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("a choice list holds at least one value")
    if len(set(values)) < len(values):
        raise ValueError(f"a choice list names each value once; got {list(values)}")
    if any(v <= 0 for v in values):
        raise ValueError(f"choices are positive numbers; got {list(values)}")
    return values


IntChoices = Annotated[tuple[int, ...], AfterValidator(_distinct)]
FloatChoices = Annotated[tuple[float, ...], AfterValidator(_distinct)]


A = TypeVar("A")


class SearchSpace(Protocol[A]):
    """A finite set of architectures. Spaces are immutable; randomness is passed in.

    A space also encodes an architecture as a fixed-length tuple of choice indices (position i counts from 0 to
    `dimensions[i] - 1`), which is what samplers that know nothing of architectures work on. Positions that an
    architecture does not use (blocks beyond its depth) are encoded as 0 and ignored when decoding.
    """

    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def dimensions(self) -> tuple[int, ...]: ...
    def size(self) -> int: ...
    def sample(self, rng: random.Random) -> A: ...
    def mutate(self, arch: A, rng: random.Random) -> A: ...
    def crossover(self, first: A, second: A, rng: random.Random) -> A: ...
    def enumerate(self) -> Iterator[A]: ...
    def encode(self, arch: A) -> tuple[int, ...]: ...
    def decode(self, indices: Sequence[int]) -> A: ...
    def __contains__(self, arch: object) -> bool: ...
    def arch_id(self, arch: A) -> str: ...
    def to_json(self, arch: A) -> dict[str, Any]: ...
    def from_json(self, obj: Mapping[str, Any]) -> A: ...
    def cost(self, arch: A, num_classes: int) -> Cost: ...
    def smallest(self, num_classes: int) -> Cost: ...
    def largest(self, num_classes: int) -> Cost: ...
    def largest_arch(self, num_classes: int) -> A: ...


def digest(obj: Mapping[str, Any]) -> str:
    """48 bits of SHA-256 of the canonical JSON: two of 50,000 architectures collide with odds of 4 in a million."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def mutate_indices(indices: Sequence[int], dimensions: Sequence[int], rng: random.Random) -> tuple[int, ...]:
    """Redraws each position with probability 1/8, and at least one that has a choice."""
    free = [i for i, count in enumerate(dimensions) if count > 1]
    chosen = {i for i in free if rng.random() < 0.125} or {rng.choice(free)}
    return tuple(
        (value + rng.randrange(1, dimensions[i])) % dimensions[i] if i in chosen else value
        for i, value in enumerate(indices)
    )


def cross_indices(first: Sequence[int], second: Sequence[int], rng: random.Random) -> tuple[int, ...]:
    """Uniform crossover: each position from either parent."""
    return tuple(rng.choice(pair) for pair in zip(first, second, strict=True))


def check_keys(space: str, obj: Any, keys: Sequence[str]) -> None:
    """Raises ValueError unless `obj` is a JSON object with exactly these keys ('space' may stand beside them)."""
    if not isinstance(obj, Mapping):
        raise ValueError(f"an architecture is a JSON object with the keys {', '.join(keys)}; got {obj!r:.80}")
    missing = [key for key in keys if key not in obj]
    unknown = [key for key in obj if key not in keys and key != "space"]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise ValueError(f"an {space} architecture has the keys {', '.join(keys)}; this one {what}")
    if obj.get("space", space) != space:
        raise ValueError(f"the architecture belongs to the space {obj['space']!r}, the search space is {space!r}")


def check_choice(key: str, value: Any, choices: Sequence[Any]) -> int:
    """The index of `value` among `choices`; raises ValueError that lists them."""
    if value not in choices:
        raise ValueError(f"{key} is {value!r}, allowed: {', '.join(map(str, choices))}")
    return list(choices).index(value)


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions along one axis after a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def linear_cost(tokens: int, inputs: int, outputs: int) -> Cost:
    """A biased Linear applied to `tokens` positions."""
    return Cost(inputs * outputs + outputs, tokens * inputs * outputs)


@functools.cache  # every architecture of a space is made of the same few
def block_cost(tokens: int, dim: int, attention_dim: int, hidden_dim: int) -> Cost:
    """One pre-norm block: two LayerNorms, qkv and output projections, two MLP layers, both attention products."""
    parts = [
        linear_cost(tokens, dim, 3 * attention_dim),
        linear_cost(tokens, attention_dim, dim),
        linear_cost(tokens, dim, hidden_dim),
        linear_cost(tokens, hidden_dim, dim),
        Cost(4 * dim, 2 * tokens * tokens * attention_dim),
    ]
    return add_costs(parts)


def add_costs(costs: Sequence[Cost]) -> Cost:
    return Cost(sum(c.params for c in costs), sum(c.flops for c in costs))
