"""Teachers' weights: a file's content as plain state dicts, and a state dict in a network.

Where a network is known, what fits it is found by names' ends and shapes, whatever a script put before or beside. Of
several that fit, whoever has images measures them (teachers/given.py); else one is taken, and that is said: an
exponential moving average (EMA) before what it averages, since scripts that keep one report its accuracy; then the
first of `WRAPPERS`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import Location
from tvt_ray.teachers.checkpoints import RESAVE, StandIn, read_content, unreadable
from tvt_ray.teachers.teacher import State, Teacher

# Keys under which training scripts put a network's state, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "module", "teacher")
# What DataParallel, Lightning and modules that hold the network put before each of its names.
PREFIXES = ("module.", "model.", "net.", "backbone.")
COMPILED = "_orig_mod"  # a part of the names of whatever torch.compile has made
INSIDE = (COMPILED, "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module", "_layer")
AVERAGED = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts here
DEEPEST = 50  # keys that lead to a state
COUNTER = "num_batches_tracked"  # BatchNorm's, without which it works as well

Place: TypeAlias = tuple[str, ...]  # the keys that lead to a state
Found: TypeAlias = tuple[Place, Mapping[str, Any]]  # and what is there


def read_state(
    path: Location,
    tell: Callable[[str], None] = say,
    what: str = "teacher weights",
    wanted: Callable[[Collection[str]], bool] | None = None,
) -> State:
    """A file's state dict: out of its wrappers, without their prefixes, in float32. `tell` is told of what was chosen.

    `what`: lines begin with it. `wanted`: whether names are those of the network that is looked for; the first state
    under some prefix whose names are is taken, without what stands beside it.

    Raises UsageError where there is no such file, or none of weights.
    """
    if not path.exists():
        raise UsageError(f"{what}: there is no file {path}")
    content = read_content(path)
    found = list(find_states(content))
    if not found:
        raise _stateless(path, content)
    fitting = [each for state in found for each in _under_prefixes(state, wanted)] if wanted else []
    for note in _describe_choice(content, *(fitting or found)):
        tell(f"{what}: {path}: {note}")
    _, entries = (fitting or found)[0]
    state = {key: value for key, value in entries.items() if isinstance(value, Tensor) and key != AVERAGED}
    return as_float32(
        path,
        {bare: state[key] for key, bare in bare_names(state).items()},
        lambda note: tell(f"{what}: {path}: {note}"),
    )


def _under_prefixes(found: Found, wanted: Callable[[Collection[str]], bool]) -> Iterator[Found]:
    """Of a state what stands under each prefix with the names that are wanted."""
    place, entries = found
    tensors = {_without_wrappers(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    for prefix in _prefixes(tensors):
        under = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if wanted(under):
            yield (*place, *filter(None, [prefix.rstrip(".")])), under


def find_states(content: Any) -> Iterator[Found]:
    """Every state dict in a file's content, with the keys that lead to it, the preferred one first.

    What holds them is gone through once: a file may hold itself, or one part under many keys at each of many levels.
    """
    yield from _find_states(content, (), set())


def _find_states(content: Any, place: Place, seen: set[int]) -> Iterator[Found]:
    if id(content) in seen or len(place) > DEEPEST:
        return
    if isinstance(content, list | tuple):
        seen.add(id(content))
        for number, part in enumerate(content):
            yield from _find_states(part, (*place, str(number)), seen)
        return
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    seen.add(id(content))
    averages = [key for key in content if is_average(key)]
    order = dict.fromkeys([*averages, *(key for key in WRAPPERS if key in content), *content])
    inside = [found for key in order for found in _find_states(content[key], (*place, key), seen)]
    yield from inside
    if not inside and any(isinstance(value, Tensor) and value.ndim for value in content.values()):
        seen.remove(id(content))  # a state may stand under several keys, each of which is told
        yield place, content


@dataclass(frozen=True)
class Candidate:
    """Weights in a file that fit a network."""

    place: str  # the keys and the prefix under which they stand; empty: the file itself
    state: State  # by the network's own names


def candidates(content: Any, build: Callable[[State], Teacher]) -> list[Candidate]:
    """All weights in a file's content that fill the network that `build` makes for them, the preferred one first.

    Of each state dict, whatever stands under one prefix and has all names and shapes. A classifier of another name fits
    where one pair of tensors has its shapes. What else is there (a criterion, a queue) is passed over.
    """
    found = list[Candidate]()
    for place, entries in find_states(content):
        tensors = {_without_wrappers(key): value for key, value in entries.items() if isinstance(value, Tensor)}
        teacher = build(tensors)
        own = teacher.backbone.network.state_dict()
        for prefix in _prefixes(tensors):
            state = _filling(teacher, own, tensors, prefix)
            if state is not None:
                found.append(Candidate(".".join([*place, *filter(None, [prefix.rstrip(".")])]), state))
    return found


def describe(found: Sequence[Candidate]) -> Iterator[str]:
    """What a person may not expect of the first of these, if anything."""
    if found and (len(found) > 1 or any(map(is_average, found[0].place.split(".")))):
        yield _choice(found[0].place, [other.place for other in found[1:]])


def _choice(place: str, others: Sequence[str]) -> str:
    left = f"; not those under {', '.join(others)}" if others else ""
    what = "moving averages (EMA)" if any(map(is_average, place.split("."))) else "weights"
    return f"the {what} under {place} are taken{left}"


def _without_wrappers(name: str) -> str:
    """Without the parts that compiling, sharding and checkpointing put between a network's own."""
    return ".".join(part for part in name.split(".") if part not in INSIDE)


def _prefixes(names: Collection[str]) -> list[str]:
    """What names may have before a network's own: nothing, or some of their first parts; that of more names first."""
    counts = Counter(".".join(parts[:depth]) for parts in (name.split(".") for name in names) for depth in range(1, 5))
    return ["", *(f"{prefix}." for prefix, _ in counts.most_common())]


def _filling(teacher: Teacher, own: State, tensors: State, prefix: str) -> State | None:
    """The network's state, as `own`, of what stands under a prefix; None where that lacks some of it."""
    names = {bare: name for name, bare in bare_names(own).items()}
    under = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    given = {names.get(key, key): value for key, value in teacher.backbone.own_names(under).items()}
    state = {key: given[key] for key in own if key in given and given[key].shape == own[key].shape}
    lacking = [key for key in own if key not in state and not key.endswith(COUNTER)]
    head = [key for key in lacking if len(own[key]) == teacher.num_classes and own[key].ndim <= 2]
    if lacking != head or len(state) <= len(head):
        return None
    taken = {id(value) for value in state.values()}
    for key in head:
        fit = [value for value in tensors.values() if value.shape == own[key].shape and id(value) not in taken]
        if len(fit) != 1:
            return None
        state[key] = fit[0]
    return state


def is_average(key: str) -> bool:
    """Whether a key speaks of an exponential moving average, as in `model_ema`."""
    return "ema" in re.split("[^a-z]+", key.lower())


def _describe_choice(content: Any, taken: Found, *others: Found) -> Iterator[str]:
    """What a person may not expect of it, if anything."""
    place, entries = taken
    averaged = any(map(is_average, place))
    if others or averaged:
        yield _choice(".".join(place), [".".join(other) for other, _ in others])
    keyed = content if isinstance(content, Mapping) else {}
    unread = [key for key, value in keyed.items() if is_average(key) and isinstance(value, StandIn | list)]
    if unread and not averaged:
        yield f"the moving averages (EMA) under {unread[0]} are no state dict and not read; other weights are taken"
    no_tensors = [key for key, value in entries.items() if not isinstance(value, Tensor)]
    if no_tensors:
        yield f"{len(no_tensors)} of {len(entries)} entries are no tensors and left out (such as {no_tensors[0]})"


def _stateless(path: Location, content: Any) -> UsageError:
    """The line for a file without a state dict: a pickled module, a training state without weights, anything else."""
    values = [content]
    if isinstance(content, Mapping):
        values += [value for key, value in content.items() if key in WRAPPERS or is_average(str(key))]
    whole = next((value for value in values if isinstance(value, StandIn)), None)
    if whole is not None:
        return unreadable(path, f"holds a whole pickled object ({whole.described()}), not its weights; {RESAVE}")
    if isinstance(content, Mapping):
        keys = ", ".join(map(str, list(content)[:5])) or "none"
        return unreadable(path, f"holds no state dict (names to tensors); its keys are {keys}; {RESAVE}")
    return unreadable(path, f"holds no state dict (names to tensors), but a {type(content).__name__}; {RESAVE}")


def class_names_in(content: Any) -> tuple[str, ...] | None:
    """What a file calls its classes, in the order of the classifier's rows; None where it does not say."""
    if not isinstance(content, Mapping):
        return None
    inner = [content, *(content[key] for key in NAMED_IN if isinstance(content.get(key), Mapping))]
    for each in inner:
        for key in CLASS_NAMES:
            names = _in_rows(each.get(key))
            if names:
                return names
    return None


def _in_rows(said: Any) -> tuple[str, ...] | None:
    """A list of texts, or a mapping of names to rows, or of rows to names, of as many rows as names."""
    if isinstance(said, Mapping):
        rows = {str(name): row for name, row in said.items()}
        if not all(isinstance(row, int) for row in rows.values()):  # id2label
            rows = {str(name): int(row) for row, name in said.items() if str(row).isdigit()}
        named = {row: name for name, row in rows.items()}
        return tuple(named[row] for row in range(len(named))) if sorted(named) == list(range(len(said))) else None
    if isinstance(said, list | tuple) and said and all(isinstance(name, str) for name in said):
        return tuple(said)
    return None


# Where training scripts write the names of classes, and in which mappings of theirs.
CLASS_NAMES = ("class_to_idx", "classes", "class_names", "CLASSES", "label_names", "labels", "id2label", "label2id")
NAMED_IN = ("meta", "hyper_parameters", "hparams", "args", "config", "metadata", "extra")


def as_float32(path: Location, state: State, tell: Callable[[str], None]) -> State:
    """Of half precision, say. Raises UsageError for tensors that are quantised, sparse, complex or without numbers."""
    for key, value in state.items():
        if value.is_quantized or value.is_meta or value.is_complex() or value.layout != torch.strided:
            raise unreadable(path, f"holds tensors that are quantized, sparse, complex or without data (such as {key})")
    others = [value.dtype for value in state.values() if value.is_floating_point() and value.dtype != torch.float32]
    if others:
        kinds = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in others}))
        tell(f"{len(others)} of {len(state)} tensors are {kinds}; converted to float32")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def bare_names(names: Collection[str]) -> dict[str, str]:
    """Each name without what wrappers put before it; a prefix goes where every name has it."""
    bare = [".".join(part for part in name.split(".") if part != COMPILED) for name in names]
    while prefix := next((p for p in PREFIXES if bare and all(name.startswith(p) for name in bare)), None):
        bare = [name.removeprefix(prefix) for name in bare]
    return dict(zip(names, bare, strict=True))


def load_weights(teacher: Teacher, state: State, path: Location, new: tuple[str, ...] = ()) -> None:
    """Fills the teacher's network with `state`, read from `path`.

    `new`: how names begin that may be missing or of another shape, and then stay as they are.
    Raises UsageError that says which names, shapes or values do not fit, or that the classes are others.
    """
    network = teacher.backbone.network
    own = network.state_dict()
    names = {bare: name for name, bare in bare_names(own).items()}
    given = {names.get(key, key): value for key, value in teacher.backbone.own_names(state).items()}
    given = {k: v for k, v in given.items() if not (k in own and k.startswith(new) and v.shape != own[k].shape)}
    missing = [key for key in own if key not in given and not key.startswith(new) and not key.endswith(COUNTER)]
    unknown = [key for key in given if key not in own and not key.endswith(COUNTER)]
    if missing or unknown:
        told = [
            f"{len(names)} {what} (such as {names[0]})"
            for names, what in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise UsageError(f"{path} does not fit teacher {teacher.name}: {', '.join(told)}")
    given = {key: value for key, value in given.items() if key in own}
    _check_shapes(teacher, path, given, own)
    _check_values(path, given, own)
    network.load_state_dict(given, strict=False)


def _check_shapes(teacher: Teacher, path: Location, given: State, own: State) -> None:
    misfits = [key for key in given if given[key].shape != own[key].shape]
    if not misfits:
        return
    num_classes = {len(given[key]) if _is_of_classes(given[key], own[key], teacher) else None for key in misfits}
    if len(num_classes) == 1 and None not in num_classes:
        raise UsageError(
            f"{path}: the teacher knows {num_classes.pop()} classes, the dataset has {teacher.num_classes}; "
            "give weights that were trained on this dataset, or none to train a teacher now"
        )
    key = misfits[0]
    got, wanted = tuple(given[key].shape), tuple(own[key].shape)
    raise UsageError(f"{path} does not fit teacher {teacher.name}: {key} is {got}, not {wanted}")


def _is_of_classes(given: Tensor, own: Tensor, teacher: Teacher) -> bool:
    """Whether a tensor is as a classifier's of other classes: one row for each class."""
    return given.ndim == own.ndim > 0 and len(own) == teacher.num_classes and given.shape[1:] == own.shape[1:]


def _check_values(path: Location, given: State, own: State) -> None:
    integers = [k for k, v in given.items() if own[k].is_floating_point() and not v.is_floating_point()]
    if integers:
        where = f"in {len(integers)} of {len(given)} tensors (such as {integers[0]})"
        raise UsageError(f"{path} holds integers for weights, {where}: quantised ones are not read; {RESAVE}")
    broken = [k for k, v in given.items() if not v.isfinite().all() and own[k].isfinite().all()]
    if broken:
        where = f"in {len(broken)} of {len(given)} tensors (such as {broken[0]})"
        raise UsageError(
            f"{path} holds values that are NaN or infinite, {where}: its training diverged or the file is damaged; "
            "give other weights"
        )
