"""What exceptions say of a device, by how PyTorch and its libraries word them."""

import pytest
import torch

from tvt_ray.scoring.faults import DeviceError, is_no_fault_of_the_architecture, is_of_device, is_out_of_memory

MEMORY = [
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139.72 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "MPS backend out of memory (MPS allocated: 17.93 GB)",
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes.",
]
DEVICE = [
    "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "CUDA driver error: unknown error",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "NCCL Error 2: unhandled system error",
    "HIP error: the operation cannot be performed in the present state",
    "CUDA error: no kernel image is available for execution on the device",
]
NEITHER = [
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
    "mat1 and mat2 shapes cannot be multiplied (64x10 and 12x7)",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
    "CUDA error: invalid configuration argument",
    "attention_similarity is not a finite number",
    "reading it took more than 5 s (search.max_seconds_per_arch)",
]


@pytest.mark.parametrize("said", MEMORY)
def test_memory_that_ran_out_is_told_by_every_wording(said):
    for error in (RuntimeError(said), torch.OutOfMemoryError(said)):
        assert (is_out_of_memory(error), is_of_device(error)) == (True, False)
    assert is_no_fault_of_the_architecture(f"RuntimeError: {said}")


@pytest.mark.parametrize("said", DEVICE)
def test_a_device_that_failed_is_told(said):
    for error in (RuntimeError(said), DeviceError(said)):
        assert (is_out_of_memory(error), is_of_device(error)) == (False, True)
    assert is_no_fault_of_the_architecture(f"its worker's device failed: {said}")


@pytest.mark.parametrize("said", NEITHER)
def test_what_is_the_architecture_s_own_fault_stays_that(said):
    assert (is_out_of_memory(RuntimeError(said)), is_of_device(RuntimeError(said))) == (False, False)
    assert not is_no_fault_of_the_architecture(f"RuntimeError: {said}")


def test_an_error_without_words_counts_by_its_kind():
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert is_out_of_memory(MemoryError())
    assert not is_no_fault_of_the_architecture(None)
