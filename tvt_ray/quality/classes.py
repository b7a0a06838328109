"""Which of a student's classes each class of a dataset is: by name, whatever their order and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvt_ray.data.notes import counted, listing
from tvt_ray.errors import UsageError


@dataclass(frozen=True)
class ClassMatch:
    """Where each class of a dataset stands among the student's, and what a person should know of that."""

    places: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def relabel(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) numbers of the dataset's classes -> (n,) numbers of the student's."""
        return np.array(self.places, np.int64)[labels]


def match_classes(known: Sequence[str], found: Sequence[str]) -> ClassMatch:
    """`known`: the student's classes; `found`: those of a dataset, all different.

    By name; a dataset may have some of the classes, in any order. One whose classes are as many numbers has no names:
    the least number is taken to be the student's first class, and so on. Raises UsageError for a class that the
    student does not know.
    """
    unknown = [name for name in found if name not in known]
    if not unknown:
        return ClassMatch(tuple(map(known.index, found)), tuple(_notes(known, found)))
    if _are_numbers(found) and len(found) == len(known) and not any(name.isdecimal() for name in known):
        return _by_number(known, found)
    raise UsageError(
        f"a student is evaluated on classes that it knows, and it does not know {listing(unknown)}: "
        f"it knows {listing(known)}; the dataset has {listing(found)}"
    )


def _notes(known: Sequence[str], found: Sequence[str]) -> list[str]:
    missing = [name for name in known if name not in found]
    if missing:
        told = f"the dataset has {len(found)} of the student's {counted(len(known), 'class')}, not {listing(missing)}"
        return [f"{told}: whatever is taken for {'one of those' if missing[1:] else 'that'} is wrong"]
    return [] if list(known) == list(found) else ["the dataset has the classes in another order: matched by name"]


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isascii() and name.isdecimal() for name in names)


def _by_number(known: Sequence[str], found: Sequence[str]) -> ClassMatch:
    in_order = sorted(found, key=int)
    assumed = listing(f"{number} is {name}" for number, name in zip(in_order, known, strict=True))
    return ClassMatch(
        tuple(map(in_order.index, found)),
        (f"the dataset has numbers and no class names: they are taken in the student's order, {assumed}",),
    )
