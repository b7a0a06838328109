"""Several workers that share each batch, as real processes."""

import dataclasses
from multiprocessing import get_context

import pytest
import torch

from tests.distillation.conftest import few, only, train
from tests.distillation.test_inheritance import NETWORK, STEM2
from tests.distillation.test_inheritance import SETTINGS as INHERITED
from tests.distillation.test_inheritance import SPACE as STAGES
from tvt_ray.distillation.cohort import Cohort
from tvt_ray.distillation.learner import DistillTask
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.training import learner
from tvt_ray.training.learner import WorkerContext

pytestmark = pytest.mark.slow


def work(rank, world_size, task, inputs, folder):
    """One worker: goes on from a state to the end, and leaves its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    wrap = torch.nn.parallel.DistributedDataParallel
    cohort = Cohort([task], inputs, WorkerContext(torch.device("cpu"), rank, world_size, wrap))
    cohort.load_state_dict(torch.load(folder / "begun.pt", weights_only=True))
    train(cohort)
    torch.save(cohort.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def choose_otherwise(rank, world_size, task, inputs, folder):
    """One worker, whose own timing would choose by its rank."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    learner.choose_precision = lambda amp, device, step: (torch.bfloat16, None)[rank]
    wrap = torch.nn.parallel.DistributedDataParallel
    cohort = Cohort([task], inputs, WorkerContext(torch.device("cpu"), rank, world_size, wrap))
    cohort.run_epoch()
    (folder / f"{rank}.txt").write_text(str(only(cohort).precision))
    torch.distributed.destroy_process_group()


@pytest.mark.night
def test_workers_compute_in_the_precision_of_the_first(make, inputs, tmp_path):
    """Each timed for itself, and float16's scaled gradients were averaged with float32's."""
    task = only(make(epochs=1, amp="auto")).task
    in_two_processes(choose_otherwise, task, dataclasses.replace(inputs, train=few(inputs.train, 40)), tmp_path)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["torch.bfloat16"] * 2


def test_a_training_goes_on_with_two_workers_to_the_weights_that_one_would_have_reached(make, inputs, tmp_path):
    """97 images make batches of 32, 32 and 33, of which the last is shared unevenly."""
    check_two_workers(only(make(epochs=2)).task, dataclasses.replace(inputs, train=few(inputs.train, 97)), tmp_path)


@pytest.mark.night
def test_stages_that_are_frozen_and_then_learn_do_so_with_two_workers_too(inputs, tmp_path):
    """Of three epochs the first two are frozen, and one of those is behind when the workers begin."""
    torch.manual_seed(0)
    teacher = build_teacher(TeacherSettings(name=f"timm:{NETWORK}", pretrained=False, image_size=32), 10).freeze()
    inputs = dataclasses.replace(inputs, train=few(inputs.train, 97), teacher=teacher)
    settings = INHERITED.with_(epochs=3, stem_frozen_epochs=2, clip_grad=1.0)
    check_two_workers(DistillTask(STAGES, STEM2, 10, settings), inputs, tmp_path)


def in_two_processes(target, task, inputs, folder):
    """They meet by a file: a port that was free a moment ago may be another test's by then, and one waits for ever."""
    context = get_context("spawn")
    arguments = [(rank, 2, task, inputs, folder) for rank in range(2)]
    processes = [context.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def check_two_workers(task, inputs, tmp_path):
    """They go on from an epoch to where one would have come."""
    whole, begun = (Cohort([task], inputs, WorkerContext(torch.device("cpu"))) for _ in range(2))
    train(whole)
    begun.run_epoch()
    torch.save(begun.state_dict(), tmp_path / "begun.pt")
    in_two_processes(work, task, inputs, tmp_path)
    images = torch.randn(20, 3, 32, 32)
    expected, start = (answers(cohort, images) for cohort in (whole, begun))
    for rank in range(2):
        begun.load_state_dict(torch.load(tmp_path / f"{rank}.pt", weights_only=True))
        assert (answers(begun, images) - expected).norm() < 0.02 * (expected - start).norm()


@torch.no_grad()
def answers(cohort, images):
    """Logits, which the bias of keys does not move: its gradients are rounding errors, which AdamW makes steps of."""
    return only(cohort).student.eval()(images)
