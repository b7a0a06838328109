"""Teachers' weights: a file's content as one plain state dict, and a state dict in a network.

Of several networks in one file one is taken, and that is said: an exponential moving average (EMA) before what it
averages, since scripts that keep one report its accuracy; then the first of `WRAPPERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
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
AVERAGED = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts here
COUNTER = "num_batches_tracked"  # BatchNorm's, without which it works as well

Place: TypeAlias = tuple[str, ...]  # the keys that lead to a state
Found: TypeAlias = tuple[Place, Mapping[str, Any]]  # and what is there


def read_state(path: Location, tell: Callable[[str], None] = say, what: str = "teacher weights") -> State:
    """A file's state dict: out of its wrappers, without their prefixes, in float32. `tell` is told of what was chosen.

    `what`: lines begin with it.

    Raises UsageError where there is no such file, or none of weights.
    """
    if not path.is_file():
        raise UsageError(f"{what}: there is no file {path}")
    content = read_content(path)
    found = list(find_states(content))
    if not found:
        raise _stateless(path, content)
    for note in _describe_choice(content, *found):
        tell(f"{what}: {path}: {note}")
    _, entries = found[0]
    state = {key: value for key, value in entries.items() if isinstance(value, Tensor) and key != AVERAGED}
    return _as_float32(
        path,
        {bare: state[key] for key, bare in bare_names(state).items()},
        lambda note: tell(f"{what}: {path}: {note}"),
    )


def find_states(content: Any, place: Place = ()) -> Iterator[Found]:
    """Every state dict in a file's content, with the keys that lead to it, the preferred one first."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    averages = [key for key in content if is_average(key)]
    inside = [
        found for key in (*averages, *WRAPPERS) if key in content for found in find_states(content[key], (*place, key))
    ]
    yield from inside
    if not inside and any(isinstance(value, Tensor) and value.ndim for value in content.values()):
        yield place, content


def is_average(key: str) -> bool:
    """Whether a key speaks of an exponential moving average, as in `model_ema`."""
    return "ema" in re.split("[^a-z]+", key.lower())


def _describe_choice(content: Mapping[str, Any], taken: Found, *others: Found) -> Iterator[str]:
    """What a person may not expect of it, if anything."""
    place, entries = taken
    averaged = any(map(is_average, place))
    if others or averaged:
        left = f"; not those under {', '.join('.'.join(other) for other, _ in others)}" if others else ""
        yield f"the {'moving averages (EMA)' if averaged else 'weights'} under {'.'.join(place)} are taken{left}"
    unread = [key for key, value in content.items() if is_average(key) and isinstance(value, StandIn | list)]
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


def _as_float32(path: Location, state: State, tell: Callable[[str], None]) -> State:
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
