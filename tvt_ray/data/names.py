"""One class under two names: Unicode's forms, blanks and case, in folders and in columns, within and between splits."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import shown

SETTING = "data.merge_names"


def one_form(name: str) -> str:
    """The composed form (NFC) of what people see, whichever a system wrote: macOS takes names apart."""
    return unicodedata.normalize("NFC", name)


def alike(name: str) -> str:
    """The same text for names that differ in case, in blanks or in Unicode's form alone."""
    return one_form(" ".join(name.split())).casefold()


def unify(
    names: Mapping[str, Iterable[str]], merge: bool | None, where: str
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The class of each name, by split, and notes. `names`: by split, first those that say the classes, which are
    train's, or what metadata calls them; `where`: for messages.

    Names that differ in Unicode's form are one class. Those that differ in case or blanks are one where they stand in
    different splits, or where `merge` says so; among the first they are two where it says they are not, and None leaves
    that to be asked: UsageError.
    """
    written = {split: list(dict.fromkeys(each)) for split, each in names.items()}
    first, *rest = written
    classes, notes = _of_first(written[first], merge, where)
    found, by_look = {first: classes}, _by(alike, dict.fromkeys(classes.values()))
    for split in rest:
        found[split] = {name: one_form(name) for name in written[split]}
        for name, form in found[split].items():
            others = by_look.get(alike(form), [])
            if form not in others and len(others) == 1 and merge is not False:
                found[split][name] = others[0]
                notes.append(f"{split} calls the class {shown(others[0])} {_quoted(name)}: it is read as one")
    return found, notes


def _of_first(names: Sequence[str], merge: bool | None, where: str) -> tuple[dict[str, str], list[str]]:
    """(the class of each name, notes)."""
    notes = [
        f"the class {shown(form)} is there in {len(same)} forms of Unicode: they are read as one"
        for form, same in _by(one_form, names).items()
        if len(same) > 1
    ]
    classes = {name: one_form(name) for name in names}
    for same in _by(alike, dict.fromkeys(classes.values())).values():
        if len(same) == 1 or merge is False:
            continue
        which = " and ".join(map(_quoted, same))
        if merge is None:
            raise UsageError(
                f"{where}: {which} differ in case or blanks alone; --set {SETTING}=true makes them one class, "
                f"--set {SETTING}=false keeps them apart"
            )
        classes.update({name: same[0] for name, form in classes.items() if form in same})
        notes.append(f"{which} are read as one class ({SETTING})")
    return classes, notes


def _by(key: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return dict(found)


def _quoted(name: str) -> str:
    """With quotes, between which blanks are seen."""
    return f"'{shown(name)}'"
