"""The states that trainings go on from, as bytes: without unpickling anything but tensors and plain values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """A state as `from_bytes` reads it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A state, its tensors on the device and no one else's: optimisers would share those that they are given."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return state
