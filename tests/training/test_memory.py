"""Memory that training gives back to the process, not to the system."""

import platform
import resource

import pytest
import torch

from tvt_ray.training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_large_tensor_gets_the_pages_of_the_one_before():
    """Its pages are not asked for again: mapped anew, 64 MiB would be 16,384 faults of 4 KiB."""
    assert keep_freed_memory()

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    torch.ones(16 * 2**20).sum()
    before = faults()
    for _ in range(3):
        torch.ones(16 * 2**20).sum()
    assert faults() - before < 16_384
