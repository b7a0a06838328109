"""Teachers' weights from files: read without unpickling, and matched to a network."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location
from tvt_ray.teachers.teacher import State, Teacher


def read_state(path: Location) -> State:
    """A state dict from .safetensors, or from .pt and .pth without unpickling anything but tensors."""
    if not path.is_file():
        raise UsageError(f"teacher weights: there is no file {path}")
    try:
        if path.name.endswith(".safetensors"):
            return load(path.read_bytes())
        loaded: Any = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path} cannot be read as a state dict: {str(error).splitlines()[0]}") from None
    except Exception as error:  # safetensors raises its own type
        raise UsageError(f"{path} cannot be read as safetensors: {error}") from None
    for wrapper in ("state_dict", "model"):
        loaded = loaded.get(wrapper, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UsageError(f"{path} holds no state dict (names to tensors)")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def load_weights(teacher: Teacher, state: State, path: Location) -> None:
    """Fills the teacher's network with `state`, read from `path`.

    Raises UsageError that says which names or shapes do not fit, or that the classes are others.
    """
    module = teacher.backbone.network
    own, state = module.state_dict(), teacher.backbone.own_names(state)
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        raise UsageError(f"{path} does not fit teacher {teacher.name}: {differences(missing, unexpected)}")
    for key in own:
        if key in state and own[key].shape != state[key].shape:
            is_classifier = len(own) - list(own).index(key) <= 2
            raise _misfit(teacher.name, path, key, state[key], own[key], is_classifier)
    module.load_state_dict(state, strict=False)


def _misfit(name: str, path: Location, key: str, got: Tensor, wanted: Tensor, is_classifier: bool) -> UsageError:
    if got.shape[1:] == wanted.shape[1:] and is_classifier:
        return UsageError(
            f"{path}: the teacher knows {len(got)} classes, the dataset has {len(wanted)}; "
            "give weights that were trained on this dataset, or none to train a teacher now"
        )
    return UsageError(f"{path} does not fit teacher {name}: {key} is {tuple(got.shape)}, not {tuple(wanted.shape)}")


def differences(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Names that a state lacks and names that it has too many, counted, with an example each."""
    parts = [
        f"{len(keys)} {what} (such as {keys[0]})"
        for keys, what in ((missing, "missing"), (unexpected, "unknown"))
        if keys
    ]
    return ", ".join(parts)
