"""What an exception of torch's says of the device: that its memory ran out, or that it cannot be used any more.

Libraries word both in many ways and raise RuntimeError for most, so what they say decides. After an error of the second
kind a process's CUDA context answers every later call with the same error: the process has to end.
"""

from __future__ import annotations

import re

import torch

# CUDA, ROCm, MPS and the CPU, torch's own allocator and those of the libraries.
_MEMORY = re.compile(
    r"out of memory|(cublas|cudnn|cusolver|cusparse|hipblas|rocblas)_status_alloc_failed|hiperroroutofmemory"
    r"|not enough memory|can't allocate memory|outofmemoryerror",
    re.IGNORECASE,
)
_DEVICE = re.compile(
    r"\b(cuda|hip|nccl|cudnn|cublas|cusolver|miopen)( driver| internal)? (error|failure)\b"
    r"|(cublas|cudnn|cusolver|cusparse|hipblas|rocblas)_status_\w|miopenstatus|hiperror\w"
    r"|device-side assert|illegal memory access|uncorrectable ecc|unspecified launch failure|\bdeviceerror\b",
    re.IGNORECASE,
)
# What a library says of a call that it does not take: another architecture's may be fine, in the same process.
_REFUSED = re.compile(
    r"_status_(not_supported|bad_param|invalid_value)|invalid (configuration )?argument", re.IGNORECASE
)


class DeviceError(RuntimeError):
    """A device that this process cannot use any more."""


def is_out_of_memory(error: BaseException | str) -> bool:
    """Whether memory ran out, of a device or of the machine: less at a time may do."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(_MEMORY.search(_said(error)))


def is_of_device(error: BaseException | str) -> bool:
    """Whether a device failed, for reasons other than its memory."""
    said = _said(error)
    return not is_out_of_memory(error) and bool(_DEVICE.search(said)) and not _REFUSED.search(said)


def is_no_fault_of_the_architecture(error: str | None) -> bool:
    """Whether a row's error is of the device that it was read on: elsewhere, or later, it may be read."""
    return error is not None and (is_out_of_memory(error) or is_of_device(error))


def _said(error: BaseException | str) -> str:
    return error if isinstance(error, str) else f"{type(error).__name__}: {error}"
