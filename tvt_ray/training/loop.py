"""The loop by which teachers and students train: epochs over shuffled batches, on each of which all learners step."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import eval_loader
from tvt_ray.training.learner import Learner, Metrics, TrainBatch, WorkerContext
from tvt_ray.training.loaders import Batch, Key, ShuffledBatches, generators_as_they_were, train_loader
from tvt_ray.training.memory import keep_freed_memory
from tvt_ray.training.pace import Division, Pace, divide, finished, scaling_of

SECONDS_BETWEEN_STATES = 10.0  # at least, so that short epochs are not spent on writing
TIMES = 3  # that a step is timed
BYTES_KEPT = 256 * 2**20  # of a worker's share of the images that validate, at most
OneLearner = TypeVar("OneLearner", bound=Learner)
Name = TypeVar("Name")


class Validation:
    """A split as networks see it, of which each worker has its share; a small one stays in memory as tensors."""

    def __init__(self, split: Split, image_size: int, worker: WorkerContext) -> None:
        self.worker = worker
        share = split.take(np.arange(worker.rank, len(split), worker.world_size))
        self.batches: Iterable[Batch] = eval_loader(share, image_size)
        self.small = 4 * 3 * image_size**2 * len(share) <= BYTES_KEPT

    @torch.inference_mode()
    def seen_by(self, see: Callable[[Tensor], Tensor]) -> Validation:
        """The same images as something makes them, for networks that go on from there; kept in memory."""
        other = copy.copy(self)
        other.batches = [(see(images), labels.to(self.worker.device)) for images, labels in self.batches]
        return other

    @torch.inference_mode()
    def accuracies(self, networks: Mapping[Name, nn.Module]) -> dict[Name, float]:
        """Top-1 accuracy in percent of each, which give logits (B, classes) alone or first."""
        device, models = self.worker.device, [network.eval() for network in networks.values()]
        if self.small and not isinstance(self.batches, list):
            self.batches = [(images.to(device), labels.to(device)) for images, labels in self.batches]
        correct = torch.zeros(len(models) + 1, dtype=torch.float64, device=device)
        for images, labels in self.batches:
            images, labels = images.to(device), labels.to(device)
            outputs = [model(images) for model in models]
            logits = [each if isinstance(each, Tensor) else each[0] for each in outputs]
            hits = [(each.argmax(1) == labels).sum() for each in logits]
            correct += torch.stack([*hits, torch.tensor(len(labels), device=device)])
        if self.worker.world_size > 1:
            torch.distributed.all_reduce(correct)
        return {key: 100 * float(each / correct[-1]) for key, each in zip(networks, correct[:-1], strict=True)}


class Loop(Generic[OneLearner]):
    """Learners by name, and what they learn from, on any number of workers; resumable at every epoch."""

    def __init__(
        self,
        learners: Mapping[str, OneLearner],
        train: Split,
        val: Split,
        image_size: int,
        transform: Callable[[Image.Image], Tensor],
        batches: ShuffledBatches,
        num_epochs: int,
        worker: WorkerContext,
        channels_last: bool = False,
    ) -> None:
        """`transform`: the augmentation. `batches`: of `train`, this worker's share of each."""
        self.learners, self.train, self.transform, self.batches = learners, train, transform, batches
        self.image_size, self.num_epochs, self.worker = image_size, num_epochs, worker
        self.sizes = batches.sizes()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.validation = Validation(val, image_size, worker)
        if worker.device.type == "cpu":
            keep_freed_memory()
        self.loader: DataLoader[Batch]
        self.load_with(0)

    def load_with(self, num_workers: int) -> None:
        """From now on, so many processes load and augment images (0: this one)."""
        self.loader = train_loader(
            self.train, self.transform, self.batches, num_workers, pinned=self.worker.device.type == "cuda"
        )

    @property
    def epoch(self) -> int:
        """Epochs that all of them have behind them."""
        return min(learner.epoch for learner in self.learners.values())

    @property
    def done(self) -> bool:
        """Whether all epochs are behind them."""
        return self.epoch >= self.num_epochs

    def train_until(
        self,
        epochs: int,
        on_epoch: Callable[[dict[str, Metrics]], None],
        keep: Callable[[], None],
        on_batch: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Trains until so many epochs are behind all learners. `on_epoch` hears the metrics of each epoch.

        `keep` is called when the state is to be written, on all workers alike: after the last epoch, and of the others
        after those that end SECONDS_BETWEEN_STATES after the one before. `on_batch` as in `run_epoch`.
        """
        kept = time.monotonic()
        while self.epoch < epochs:
            on_epoch(self.run_epoch(on_batch))
            if self.worker.agreed(self.epoch >= epochs or time.monotonic() - kept >= SECONDS_BETWEEN_STATES):
                keep()
                kept = time.monotonic()

    @generators_as_they_were()
    def run_epoch(self, on_batch: Callable[[int], None] = lambda images: None) -> dict[str, Metrics]:
        """Trains for an epoch all learners that lack it, and validates them: each one's metrics.

        `on_batch` hears how many images each batch had, over all learners of this worker.
        """
        start = time.perf_counter()
        behind = {name: each for name, each in self.learners.items() if each.epoch == self.epoch}
        losses, waited_s = self._train_epoch(list(behind.values()), on_batch)
        train_s = time.perf_counter() - start
        models = {(name, of): model for name, each in behind.items() for of, model in each.validated().items()}
        accuracies = self.validate(models)
        speed = {
            "images_per_s": len(self.train) / train_s,
            "data_wait_share": waited_s / train_s,
            "seconds": (time.perf_counter() - start) / len(behind),
        }
        for (name, learner), terms in zip(behind.items(), losses, strict=True):
            own = {of: accuracy for (whose, of), accuracy in accuracies.items() if whose == name}
            learner.history.append({**learner.end_epoch(terms, own), **speed})
        return {name: learner.history[-1] for name, learner in behind.items()}

    def validate(self, models: Mapping[tuple[str, str], nn.Module]) -> dict[tuple[str, str], float]:
        """Accuracies in percent of some learners' networks, by learner and metric."""
        return self.validation.accuracies(models)

    def _train_epoch(
        self, learners: Sequence[OneLearner], on_batch: Callable[[int], None]
    ) -> tuple[list[Metrics], float]:
        """Each learner's mean terms, and the seconds that went into waiting for images."""
        self.batches.set_epoch(self.epoch)
        totals: list[dict[str, Tensor]] = [{} for _ in learners]
        seen, waited_s, keys = 0, 0.0, list(self.batches)
        batches = self._without_images(keys) if self.knows(learners, keys) else iter(self.loader)
        for step in range(len(self.sizes)):
            asked = time.perf_counter()
            images, labels = self._placed(next(batches))
            waited_s += time.perf_counter() - asked
            batch, count = self.prepare(step, images, labels, keys[step]), len(labels)
            for learner, total in zip(learners, totals, strict=True):
                for name, value in learner.train_step(batch).items():
                    total[name] = total.get(name, torch.zeros((), device=labels.device)) + count * value
            seen += count
            on_batch(count * len(learners))
        return [{name: value.item() / seen for name, value in total.items()} for total in totals], waited_s

    def _placed(self, batch: Batch) -> Batch:
        """On the worker's device, in the memory format that is asked for."""
        images, labels = (part.to(self.worker.device, non_blocking=True) for part in batch)
        return images.contiguous(memory_format=self.layout), labels

    def _without_images(self, keys: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        for batch in keys:
            places = np.array([place for _, place in batch])
            yield torch.empty(0, 3, 1, 1), torch.from_numpy(self.train.take(places).labels)

    def knows(self, learners: Sequence[OneLearner], keys: Sequence[Sequence[Key]]) -> bool:
        """Whether an epoch of these images needs none of their pixels, since what comes of them was kept."""
        return False

    def prepare(self, step: int, images: Tensor, labels: Tensor, keys: Sequence[Key] = ()) -> TrainBatch:
        """What learners are given of the epoch's `step`-th batch. `keys`: of its images; none: nothing is kept."""
        return TrainBatch(step, images, labels, self.sizes[step])

    def division(self, cpus: int, loader_workers: int | None = None) -> Division:
        """Of so many CPUs between loading and computing: as given, or for None as measured here.

        Ray may count more CPUs than there are, whose threads would wait for each other.
        """
        cpus = min(cpus, os.cpu_count() or 1)
        if loader_workers is not None:
            return Division(loader_workers, max(1, cpus - loader_workers))
        return divide(cpus, self.measure(cpus)) if cpus > 1 else Division(0, 1)

    def use(self, division: Division) -> None:
        """Sets the threads of this process, and the loader's processes."""
        torch.set_num_threads(division.threads)
        self.load_with(division.loader_workers)

    @generators_as_they_were()
    def measure(self, cpus: int, learns: bool = False) -> Pace:
        """What a batch takes on one thread and on `cpus` in turn: the least of TIMES each, after one that warms up.

        The least, since others that are at work for a moment would halve a training's pace by a wrong division.
        Nothing of the training moves, unless it `learns`, for who needs it no more: then steps are whole, optimiser
        and all.
        """
        buffers = [buffer for learner in self.learners.values() for buffer in learner.network.buffers()]
        kept, threads = [buffer.clone() for buffer in buffers], torch.get_num_threads()
        seconds = [self._batch_seconds(count, learns) for count in (1, cpus) * (1 + TIMES)]
        torch.set_num_threads(threads)
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)
        load_s, step_s = (min(each) for each in zip(*seconds[2::2], strict=True))
        many_s = min(step for _, step in seconds[3::2])
        return Pace(load_s, step_s, scaling_of(step_s, many_s, cpus), on_gpu=self.worker.device.type == "cuda")

    def _batch_seconds(self, threads: int, learns: bool) -> tuple[float, float]:
        """To load a batch, and to train on it."""
        torch.set_num_threads(threads)
        start, device = time.perf_counter(), self.worker.device
        images, labels = self._placed(next(iter(self.loader)))
        loaded = finished(device)
        batch = self.prepare(0, images, labels)
        prepared = finished(device)
        for learner in self.learners.values():
            learner.settle_precision(batch)
        settled = finished(device)
        for learner in self.learners.values():
            learner.train_step(batch) if learns else learner.rehearse(batch)
        return loaded - start, prepared - loaded + finished(device) - settled

    def accuracies(self, networks: Mapping[Name, nn.Module], split: Split) -> dict[Name, float]:
        """Top-1 accuracy in percent of each on a split, over all workers."""
        return Validation(split, self.image_size, self.worker).accuracies(networks)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on, by learner; loads with weights_only=True."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken. A learner that it lacks begins, and catches up."""
        for name, state in states.items():
            self.learners[name].load_state_dict(state)
