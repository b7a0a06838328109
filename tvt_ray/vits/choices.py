"""Choices, and architectures as tuples of choice indices: what a space's declaration is made of."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from pydantic import AfterValidator


class Choice(NamedTuple):
    """What a field of an architecture is beside its value; it is chosen from the space's list of the same name."""

    title: str = ""  # of its column; "": its name
    letter: str | None = None  # before its value in ids; None: the title's first, and none before a word
    per: Literal["network", "stage", "block"] = "network"  # stage, block: a tuple, that of blocks as long as `depth`
    grows: bool = False  # costs grow with it: for the extremes, only its least and its most have to be tried
    feature: str = ""  # the name of its feature; "": the title
    reads: Callable[[Any, Any], float] | None = None  # (space, architecture) -> what the feature is of
    # of words: those that have a feature, which says whether the architecture has it; or what gives them of a space
    flags: Sequence[str] | Callable[[Any], Sequence[str]] = ()
    # (space, what was chosen before) -> what is allowed, where that is no list of the space: always equally many
    options: Callable[[Any, Mapping[str, Any]], Sequence[Any]] | None = None


@functools.cache
def choices_of(arch_type: Any) -> tuple[tuple[str, Choice], ...]:
    """The fields of an architecture with what their annotations say, in order; those of blocks come last."""
    hints, found = get_type_hints(arch_type, include_extras=True), []
    for field in dataclasses.fields(arch_type):
        annotated = getattr(hints[field.name], "__metadata__", ())
        choice = next((each for each in annotated if isinstance(each, Choice)), Choice())
        found.append((field.name, choice._replace(title=choice.title or field.name)))
    return tuple(sorted(found, key=lambda each: each[1].per == "block"))


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values again. Raises ValueError where there are none, or one comes twice."""
    if not values:
        raise ValueError("a choice list holds at least one value")
    if len(set(values)) < len(values):
        raise ValueError(f"a choice list names each value once; got {list(values)}")
    return values


def _positive(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not all(0 < v < math.inf for v in values):
        raise ValueError(f"choices are positive numbers; got {list(values)}")
    if max(values) > LARGEST:
        raise ValueError(f"choices are at most {LARGEST:,}; got {max(values):,}")
    return values


def few_blocks(values: Iterable[int]) -> None:
    """Raises ValueError for more blocks than a network could be built of."""
    if (most := max(values)) > MOST_BLOCKS:
        raise ValueError(f"a network has at most {MOST_BLOCKS:,} blocks; got {most:,}")


def _blocks(values: tuple[int, ...]) -> tuple[int, ...]:
    few_blocks(values)
    return _positive(values)  # type: ignore[no-any-return]


def _counts(values: tuple[int, ...]) -> tuple[int, ...]:
    return values if values == (0,) else _blocks(values)


LARGEST, MOST_BLOCKS = 2**16, 1000
BlockChoices = Annotated[tuple[int, ...], AfterValidator(distinct), AfterValidator(_blocks)]
IntChoices = Annotated[tuple[int, ...], AfterValidator(distinct), AfterValidator(_positive)]
# of blocks; 0, alone: none
CountChoices = Annotated[tuple[int, ...], AfterValidator(distinct), AfterValidator(_counts)]
FloatChoices = Annotated[tuple[float, ...], AfterValidator(distinct), AfterValidator(_positive)]


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


def check_keys(space: str, obj: Any, keys: Sequence[str]) -> None:
    """Raises ValueError unless `obj` is a JSON object with exactly these keys ('space' may stand beside them)."""
    if not isinstance(obj, Mapping):
        raise ValueError(f"an architecture is a JSON object with the keys {', '.join(keys)}; got {obj!r:.80}")
    missing = [key for key in keys if key not in obj]
    unknown = [key for key in obj if key not in keys and key != "space"]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise ValueError(f"architectures of the space {space} have the keys {', '.join(keys)}; this one {what}")
    if obj.get("space", space) != space:
        raise ValueError(f"the architecture belongs to the space {obj['space']!r}, the search space is {space!r}")


def check_choice(key: str, value: Any, choices: Sequence[Any]) -> int:
    """The index of `value` among `choices`; raises ValueError that lists them."""
    try:
        return choices.index(value)
    except ValueError:
        raise ValueError(f"{key} is {value!r}, allowed: {', '.join(map(str, choices))}") from None
