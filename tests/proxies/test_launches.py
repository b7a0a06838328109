"""What each proxy asks of a device, counted without one: operations, waits for numbers, and that all lies there."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import SMALL_SPACES
from tvt_ray.proxies import PROXIES
from tvt_ray.vits import build_student

SPACE = SMALL_SPACES["autoformer"]
DEPEND_ON_DATA = {"zico"}  # on which weights vary
# Of a student of three blocks: the most operations that each may launch, and the most times that the host may wait.
MOST = {
    "attention_entropy": (170, 1),
    "attention_similarity": (120, 1),
    "diswot": (330, 3),
    "dss": (650, 1),
    "fisher": (490, 1),
    "grad_norm": (420, 1),
    "grasp": (1800, 1),
    "jacob_cov": (380, 2),
    "l2_norm": (35, 1),
    "linear_regions": (140, 1),
    "log_norm": (35, 1),
    "ntk": (3700, 1),
    "nwot": (150, 1),
    "rank_sum": (0, 0),
    "snip": (460, 1),
    "synflow": (650, 1),
    "zen": (230, 1),
    "zico": (1800, 15),  # of each layer, which weights vary
}
WAITS = ("aten._local_scalar_dense", "aten.equal")


class Counter(TorchDispatchMode):
    """Counts operations and waits. Numbers that the host waits for are ones where there are no data (meta)."""

    def __init__(self, patch):
        super().__init__()
        self.operations = self.waits = 0
        for name in ("item", "__float__", "__int__", "__bool__"):
            patch.setattr(torch.Tensor, name, self._reading(getattr(torch.Tensor, name), name == "__bool__"))
        listed = torch.Tensor.tolist
        patch.setattr(torch.Tensor, "tolist", lambda tensor: self._listed(tensor, listed))

    def _reading(self, read, is_bool):
        return lambda tensor: (True if is_bool else 1.0) if tensor.is_meta else read(tensor)

    def _listed(self, tensor, read):
        self.waits += 1
        return [1.0] * len(tensor) if tensor.is_meta else read(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        masked = str(function) == "aten.index.Tensor" and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.waits += masked or str(function).startswith(WAITS)  # how many there are is waited for
        if args and isinstance(args[0], torch.Tensor) and args[0].is_meta and str(function).startswith(WAITS):
            return 1.0
        return function(*args, **(kwargs or {}))


@pytest.fixture
def student():
    return build_student(SPACE, SPACE.largest_arch(10), 10, seed=0)


def test_every_proxy_has_a_bound():
    assert MOST.keys() == PROXIES.keys()


@pytest.mark.parametrize("name", sorted(PROXIES))
def test_a_reading_launches_no_more_than_it_needs_and_waits_for_numbers_once(name, student, probe, monkeypatch):
    with Counter(monkeypatch) as counter:
        PROXIES[name].read(student, probe)
    operations, waits = MOST[name]
    assert 0.8 * operations <= counter.operations <= operations  # a bound that is far off holds nothing
    assert counter.waits <= waits


@pytest.mark.parametrize("name", sorted(PROXIES.keys() - DEPEND_ON_DATA))
def test_all_that_a_reading_computes_with_lies_on_the_students_device(name, student, probe, monkeypatch):
    """An operation on the meta device that is given anything of another raises."""
    with Counter(monkeypatch):
        PROXIES[name].read(student.to("meta"), probe.to("meta"))
