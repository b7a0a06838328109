"""A space is declared: what is chosen, and how an architecture becomes parts. All else follows from that, here."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self, TypeAlias

from tvt_ray.strict import Pixels, Strict
from tvt_ray.vits.blocks import Block
from tvt_ray.vits.choices import Choice, check_choice, check_keys, choices_of, mutate_indices
from tvt_ray.vits.pieces import Cost, Part, add_costs
from tvt_ray.vits.student import Student, TimmModel

# An architecture: a frozen dataclass, of the kind that its space makes. Only the space looks inside.
Arch: TypeAlias = Any


class Space(Strict):
    """A finite set of architectures. Spaces are immutable settings; randomness is passed in.

    One of its own sets `arch_type`, has a list for each field of that, and says in `parts` what an architecture
    computes. Fields may say more of themselves, by a `Choice` in their annotation.

    An architecture is also a tuple of choice indices, of the same length for all: position i counts from 0 to
    `dimensions[i] - 1`. Samplers that know nothing of architectures work on those. Positions that an architecture does
    not use (blocks beyond its depth) are encoded as 0 and ignored when decoding.
    """

    arch_type: ClassVar[Any]  # a frozen dataclass, whose fields are the choices
    student: ClassVar[type[Student]] = Student

    name: str  # its row in SPACES
    # pixels along each side of what students see; a multiple of every patch size that does not overlap
    image_size: Pixels = 224

    def parts(self, arch: Arch, num_classes: int) -> tuple[Part, ...]:
        """What its student computes, one after the other: a stem, blocks with pools between them, a head."""
        raise NotImplementedError

    def timm_model(self, arch: Arch) -> TimmModel | None:
        """What its student is to timm; None where timm has no such model."""
        return None

    def build(self, arch: Arch, num_classes: int) -> Student:
        """Its student, whose weights hold whatever memory held."""
        return self.student(self.parts(arch, num_classes))

    def num_blocks(self, arch: Arch) -> int:
        """Transformer blocks over all stages."""
        return sum(issubclass(part.piece, Block) for part in self.parts(arch, 1))

    def cost(self, arch: Arch, num_classes: int) -> Cost:
        """What it costs with a classifier of so many classes, equal to the built student's."""
        return add_costs([part.cost for part in self.parts(arch, num_classes)])

    def smallest(self, num_classes: int) -> Cost:
        """The fewest parameters and the fewest FLOPs that any architecture has."""
        return Cost(*map(min, zip(*[self.cost(arch, num_classes) for arch in self._extremes(min)], strict=True)))

    def largest(self, num_classes: int) -> Cost:
        """The most parameters and the most FLOPs that any architecture has."""
        return Cost(*map(max, zip(*[self.cost(arch, num_classes) for arch in self._extremes(max)], strict=True)))

    def largest_arch(self, num_classes: int) -> Arch:
        """The architecture of most FLOPs."""
        return max(self._extremes(max), key=lambda arch: self.cost(arch, num_classes).flops)

    def _extremes(self, pick: Callable[[Iterable[Any]], Any]) -> list[Arch]:
        """Those of which one is extreme: what costs grow with is picked, all else tried out, alike in all blocks."""
        found: list[dict[str, Any]] = [{}]
        for name, choice, options in self._choices:
            before, found = found, []
            for chosen in before:
                allowed = options(self, chosen) if callable(options) else options
                tried = [pick(allowed)] if choice.grows else allowed
                found += [chosen | {name: (v,) * chosen["depth"] if choice.per == "block" else v} for v in tried]
        return [self._make(chosen) for chosen in found]

    def _make(self, values: Mapping[str, Any]) -> Arch:
        """The architecture of these fields; one that is no argument follows from the others."""
        return self.arch_type(*map(values.__getitem__, self.arch_type.__match_args__))

    @cached_property
    def _choices(self) -> list[tuple[str, Choice, Any]]:
        """Fields, and what each may be: a list, or what gives one from what was chosen before."""
        return [(name, choice, choice.options or getattr(self, name)) for name, choice in choices_of(self.arch_type)]

    # Choice indices

    @cached_property
    def _positions(self) -> list[tuple[int, int | None]]:
        """Of the encoding: how many choices there are, and of which block, if of one."""
        chosen, positions = dict[str, Any](), list[tuple[int, int | None]]()
        for name, choice, options in self._choices:
            allowed = options(self, chosen) if callable(options) else options
            chosen[name] = allowed[0]
            blocks = range(self._max_depth) if choice.per == "block" else (None,)
            positions += [(len(allowed), block) for block in blocks]
        return positions

    @cached_property
    def _max_depth(self) -> int:
        return max(self.depth)  # type: ignore[attr-defined, no-any-return]

    def __copy__(self) -> Self:
        """Of the settings alone: `model_copy` changes some of them, on which what is cached rests."""
        copied = super().__copy__()
        for name in vars(self).keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        """Of the settings alone: what is cached is made again where they go, and holds functions that do not travel."""
        state = super().__getstate__()
        return {**state, "__dict__": {name: state["__dict__"][name] for name in type(self).model_fields}}

    @cached_property
    def dimensions(self) -> tuple[int, ...]:
        """Choices at each position of the encoding."""
        return tuple(count for count, _ in self._positions)

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """Its choice indices. Raises ValueError for an architecture of another space."""
        chosen, indices = dict[str, Any](), list[int]()
        for name, choice, options in self._choices:
            value = chosen[name] = getattr(arch, name)
            allowed = options(self, chosen) if callable(options) else options
            if choice.per == "block":
                indices += [check_choice(f"{name}[{i}]", each, allowed) for i, each in enumerate(value)]
                indices += [0] * (self._max_depth - len(value))
            else:
                indices.append(check_choice(name, value, allowed))
        return tuple(indices)

    def decode(self, indices: Sequence[int]) -> Arch:
        """The architecture of these choice indices."""
        chosen, at = dict[str, Any](), 0
        for name, choice, options in self._choices:
            allowed = options(self, chosen) if callable(options) else options
            if choice.per == "block":
                chosen[name] = tuple([allowed[i] for i in indices[at : at + chosen["depth"]]])
                at += self._max_depth
            else:
                chosen[name] = allowed[indices[at]]
                at += 1
        return self._make(chosen)

    def __contains__(self, arch: object) -> bool:
        try:
            return isinstance(arch, self.arch_type) and bool(self.encode(arch))
        except ValueError:
            return False

    def size(self) -> int:
        """How many architectures there are."""
        positions = self._positions
        network = math.prod(count for count, block in positions if block is None)
        each = math.prod(count for count, block in positions if block == 0)
        depths: Sequence[int] = getattr(self, "depth", ()) if each > 1 else ()
        return network // len(depths) * sum(each**depth for depth in depths) if depths else network

    def enumerate(self) -> Iterator[Arch]:
        """All of them, in the order of the choice lists."""
        positions = self._positions
        by_block = [(count, block) for count, block in positions if block is not None]
        for network in itertools.product(*[range(count) for count, block in positions if block is None]):
            first = self.decode((*network, *[0] * len(by_block)))
            ranges = [range(count if block < first.depth else 1) for count, block in by_block]
            for rest in itertools.product(*ranges):
                yield self.decode((*network, *rest)) if rest else first

    def sample(self, rng: random.Random) -> Arch:
        """One at random: every choice uniformly, so that each depth is as likely as any other."""
        return self.decode([rng.randrange(count) for count in self.dimensions])

    def mutate(self, arch: Arch, rng: random.Random) -> Arch:
        """Another one near `arch`. Raises ValueError where there is no other."""
        if max(self.dimensions) == 1:
            raise ValueError("the space holds a single architecture: nothing to mutate to")
        child = arch
        while child == arch:
            child = self.decode(mutate_indices(self._genes(arch, rng), self.dimensions, rng))
        return child

    def crossover(self, first: Arch, second: Arch, rng: random.Random) -> Arch:
        """One whose choices are either parent's; blocks that only one has are drawn at random."""
        pairs = zip(self._genes(first, rng), self._genes(second, rng), strict=True)
        return self.decode([rng.choice(pair) for pair in pairs])

    def _genes(self, arch: Arch, rng: random.Random) -> list[int]:
        """The encoding, with positions that are not used drawn at random instead of 0."""
        pairs = zip(self.encode(arch), self._positions, strict=True)
        return [i if block is None or block < arch.depth else rng.randrange(n) for i, (n, block) in pairs]

    # Names and numbers

    def arch_id(self, arch: Arch) -> str:
        """Names the architecture: letters, digits, dots and hyphens, so that it can name a folder."""
        return "-".join([self.name, *self._words(arch)])

    def shape(self, arch: Arch) -> str:
        """Names all that scores can tell apart. Architectures of one shape are copies to whoever chooses by a score."""
        return self.arch_id(arch)

    def _words(self, arch: Arch, without: Collection[str] = ()) -> list[str]:
        """Each choice as a letter and its value, but for those that are named."""
        words = []
        for name, choice, _ in self._choices:
            value = getattr(arch, name)
            letter = choice.letter if choice.letter is not None or isinstance(value, str) else choice.title[0]
            text = ".".join([str(each).removesuffix(".0") for each in _each(value)])
            words += [] if name in without else [f"{letter or ''}{text}"]
        return words

    def describe(self, arch: Arch) -> str:
        """Every choice by its name, in a few words; of blocks, how often each comes in a row."""
        by_block = {choice.title for _, choice, _ in self._choices if choice.per == "block"}
        columns = self.columns(arch).items()
        return ", ".join(f"{name} {_run_lengths(text) if name in by_block else text}" for name, text in columns)

    def columns(self, arch: Arch) -> dict[str, str]:
        """Every choice by its name, as columns of a table, in order."""
        return {choice.title: _text(getattr(arch, name)) for name, choice, _ in self._choices}

    def features(self, arch: Arch) -> dict[str, float]:
        """Its shape in numbers, the same names for all: base-2 logarithms, so that 1 more is twice as much.

        Of what differs by block, their mean. A name that begins with `has_` is 1 where the architecture has that,
        else 0.
        """
        found = dict[str, float]()
        for name, choice, _ in self._choices:
            value: Any = choice.reads(self, arch) if choice.reads else getattr(arch, name)
            feature = choice.feature or choice.title
            if isinstance(value, str):
                flags = choice.flags(self) if callable(choice.flags) else choice.flags
                found |= {f"has_{flag}_{feature}": float(value == flag) for flag in flags}
            elif choice.per == "stage":
                found |= {f"{feature}_{i}": math.log2(each) for i, each in enumerate(value, 1)}
            else:
                found[feature] = statistics.fmean(map(math.log2, _each(value)))
        return found

    def to_json(self, arch: Arch) -> dict[str, Any]:
        """As files hold it: the fields of the architecture, under their names."""
        names = [name for name, _, _ in self._choices]
        return {name: list(v) if isinstance(v := getattr(arch, name), tuple) else v for name in names}

    def from_json(self, obj: Mapping[str, Any]) -> Arch:
        """Raises ValueError that says which entry is wrong and what is allowed."""
        check_keys(self.name, obj, [name for name, _, _ in self._choices])
        values = dict(obj)
        for name, choice, options in self._choices:
            if choice.per == "network":
                continue
            if choice.per == "stage":
                length = len((options(self, values) if callable(options) else options)[0])
                rule = f"of {length} numbers, one per stage"
            else:
                length, rule = obj["depth"], f"of length depth ({obj['depth']})"
            if not isinstance(obj[name], list) or len(obj[name]) != length:
                raise ValueError(f"{name} is a list {rule}; got {obj[name]!r}")
            values[name] = tuple(obj[name])
        return self.decode(self.encode(self._make(values)))


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _text(value: Any) -> str:
    return " ".join([f"{each:g}" if isinstance(each, float) else str(each) for each in _each(value)])


def _run_lengths(text: str) -> str:
    """3 3 3 4 -> 3x3 4: how often each word comes in a row, where that is more than once."""
    runs = ((word, len(list(same))) for word, same in itertools.groupby(text.split()))
    return " ".join(word if count == 1 else f"{count}x{word}" for word, count in runs)
