"""What a batch of a cohort takes."""

import pytest
import torch

from tests.distillation.conftest import only, same
from tvt_ray.distillation.pace import measure


@pytest.mark.slow
def test_measuring_changes_nothing_that_is_learned(make):
    measured, other = make(), make()
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    pace = measure(measured, 2)
    assert pace.load_s > 0
    assert pace.step_s > 0
    assert not pace.on_gpu
    assert 0 <= pace.scaling <= 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(1), torch.manual_seed(3) and torch.rand(1))
    for cohort in (measured, other):
        cohort.run_epoch()
    assert same(only(measured).guided.state_dict(), only(other).guided.state_dict())
