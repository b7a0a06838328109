import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.latency.timing import Bench
from tvt_ray.vits.parts import block_part


def test_parts_and_students_take_some_time_and_leave_the_threads_alone(space):
    bench, arch = Bench("cpu", 1, 2), next(iter(space.enumerate()))
    threads = torch.get_num_threads()
    assert bench.part_ms(space.parts(arch, 10)[0]) > 0
    assert bench.student_ms(space, arch, 10) > 0
    assert torch.get_num_threads() == threads


def test_times_are_in_milliseconds_of_one_part():
    """Some 10^8 multiply-accumulates: no CPU does them in 10 microseconds, and each does in 10 seconds."""
    assert 0.01 < Bench("cpu", 1, 1).part_ms(block_part(197, 192, 3, 192, 768)) < 10_000


def test_a_batch_is_what_the_student_sees():
    seen = []
    space = SMALL_SPACES["vit"]
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape)) if type(module).__name__ == "ViT" else None
    )
    Bench("cpu", 1, 5).student_ms(space, next(iter(space.enumerate())), 10)
    handle.remove()
    assert set(seen) == {(5, 3, 32, 32)}
