"""Medians of torch.utils.benchmark: of parts and of whole students, in eager PyTorch without gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.benchmark import Timer

from tvt_ray.latency.device import DeviceKind
from tvt_ray.vits import Arch, Space, build_student
from tvt_ray.vits.draws import INIT_STD
from tvt_ray.vits.pieces import Part

NUM_COPIES = 4  # of a part, one after the other, each with weights of its own: those of a student are not in the cache
NUM_WARM_UPS = 3
PART_S, STUDENT_S = 0.05, 0.1  # that is spent on each, at least


@dataclass(frozen=True)
class Bench:
    """Where and how something is timed."""

    kind: DeviceKind
    threads: int  # of PyTorch on the CPU
    batch_size: int  # images at a time

    def part_ms(self, part: Part) -> float:
        """Milliseconds that a part takes among others like it."""
        modules = [build_part(part, self.kind) for _ in range(NUM_COPIES)]
        inputs = torch.randn(self.batch_size, *modules[0][1], device=self.kind)

        def run() -> None:
            for module, _ in modules:
                module(inputs)

        return self.median_ms(run, PART_S) / NUM_COPIES

    def student_ms(self, space: Space, arch: Arch, num_classes: int) -> float:
        """Milliseconds from images on the device to logits."""
        student = build_student(space, arch, num_classes, seed=0, device=self.kind)
        images = torch.randn(self.batch_size, 3, space.image_size, space.image_size, device=self.kind)
        return self.median_ms(lambda: student(images), STUDENT_S)

    def median_ms(self, run: Callable[[], object], min_s: float) -> float:
        """Milliseconds of a call. Timer waits for the GPU, and sets PyTorch's threads for as long as it runs."""
        timer = Timer("run()", globals={"run": run}, num_threads=self.threads)
        with torch.inference_mode():
            timer.timeit(NUM_WARM_UPS)
            return 1e3 * float(timer.blocked_autorange(min_run_time=min_s).median)


def build_part(part: Part, device: torch.device | str = "cpu") -> tuple[nn.Module, tuple[int, ...]]:
    """The module in eval mode, with some weights, and the shape of its input without the axis of images."""
    with torch.device(device), torch.no_grad():
        module = part.piece.timed(*part.sizes)
        for parameter in module.parameters():
            parameter.normal_(0, INIT_STD)  # numbers as a student's, since denormal ones would be slow
    return module.eval(), part.input_shape
