import os

import pytest
import torch

from tvt_ray.errors import UsageError
from tvt_ray.latency.device import Device, _cpu_name, this_device


def test_this_machine_is_itself():
    device = this_device("cpu")
    assert device == this_device("cpu")
    assert (device.kind, device.cores) == ("cpu", os.cpu_count())
    assert device.name.strip() == device.name != ""


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(UsageError, match="one of cpu, cuda; got 'tpu'"):
        this_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line():
    with pytest.raises(UsageError, match="no CUDA device that PyTorch can use; choices: cpu"):
        this_device("cuda")


def test_a_processor_is_called_what_the_system_says(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nprocessor\t: 1\n")
    assert _cpu_name(tmp_path / "cpuinfo") == "Some CPU @ 3 GHz"
    assert _cpu_name(tmp_path / "missing")


def test_a_device_says_what_it_is():
    assert str(Device(kind="cuda", name="Some GPU", cores=8)) == "Some GPU (cuda, 8 cores)"
