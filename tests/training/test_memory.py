"""Memory that training gives back to the process, not to the system."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from tvt_ray.training.memory import keep_freed_memory, release_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_large_tensor_gets_the_pages_of_the_one_before():
    """Its pages are not asked for again: mapped anew, 64 MiB would be 16,384 faults of 4 KiB."""
    assert keep_freed_memory()

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    for _ in range(8):  # until the heap has room for it
        torch.ones(16 * 2**20).sum()
    before = faults()
    for _ in range(3):
        torch.ones(16 * 2**20).sum()
    assert faults() - before < 16_384


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_what_is_free_goes_back_to_the_system_when_it_is_released():
    """Between tensors that stay as well: the end of the heap is not what counts."""
    keep_freed_memory()

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    tensors = [torch.ones(2**18) for _ in range(400)]  # of a mebibyte each
    kept = tensors[::40]
    full = resident()
    del tensors
    release_freed_memory()
    assert full - resident() > 250 * 2**20
    assert all(float(tensor.sum()) == 2**18 for tensor in kept)
