"""Training batches whose pixels depend on (seed, view, image) alone, however many processes load or train."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tvt_ray.data.splits import Split

Batch = tuple[Tensor, Tensor]  # images (B, 3, H, W), normalised; labels (B,) int64
Sampling = Literal["uniform", "balanced"]
Key = tuple[int, int]  # view (the epoch, unless views come again), place in the split


def seed_everything(key: str) -> None:
    """Seeds the three generators that augmentation, mixing and stochastic depth draw from."""
    seed = random.Random(key).getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    seed_torch(seed)


def seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, of the CPU and of GPUs in use.

    Torch's own takes a stack trace for each kind of device that is not in use: a third of a millisecond and more, about
    as long as it takes to augment an image.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


@contextlib.contextmanager
def generators_as_they_were() -> Iterator[None]:
    """Whatever the block draws or seeds, the three generators (torch's of the CPU) go on as if it had not."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class AugmentedSplit(Dataset[Batch]):
    """A split whose images go through a random `transform`, seeded for each (seed, view, image)."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor], seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: list[Key]) -> Batch:
        """A whole batch at once, as PyTorch's loader asks for it."""
        with generators_as_they_were():
            images = [self._augmented(*key) for key in keys]
        labels = self.split.take(np.array([place for _, place in keys])).labels
        return torch.stack(images), torch.from_numpy(labels)

    def _augmented(self, view: int, place: int) -> Tensor:
        image, _ = self.split[place]
        seed_everything(f"{self.seed}/{view}/{place}")
        return self.transform(image)


class ShuffledBatches(Sampler[list[Key]]):
    """Which images make up the batches of an epoch, and which of them one of several workers takes.

    Every worker goes through the same batches and takes each `world_size`-th image of them, so that what is learned
    does not depend on how many there are. The last batch of an epoch is a smaller one; where it could not give every
    worker an image, or holds one image alone, it is joined to the batch before.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        sampling: Sampling = "uniform",
        num_views: int | None = None,
    ) -> None:
        """`num_views`: augmentations of an image, which come again after so many epochs; None: each is another."""
        self.num_views = num_views
        self.labels, self.batch_size, self.seed = labels, min(batch_size, len(labels)), seed
        self.rank, self.world_size, self.sampling = rank, world_size, sampling
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets which epoch the next pass is, by which its order is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.starts()) - 1

    def starts(self) -> list[int]:
        """Where the batches begin in an epoch's order, and where the last one ends."""
        total = len(self.labels)
        starts = list(range(0, total, self.batch_size))
        if len(starts) > 1 and total - starts[-1] < max(self.world_size, 2):
            starts.pop()
        return [*starts, total]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The places of an epoch: a permutation, or as many draws that favour no class."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.sampling == "uniform":
            return rng.permutation(len(self.labels))
        counts = np.bincount(self.labels)
        weights = 1.0 / counts[self.labels]
        return rng.choice(len(self.labels), len(self.labels), p=weights / weights.sum())

    def __iter__(self) -> Iterator[list[Key]]:
        order, starts = self.order(self.epoch).tolist(), self.starts()
        view = self.epoch if self.num_views is None else self.epoch % self.num_views
        for start, stop in itertools.pairwise(starts):
            yield [(view, place) for place in order[start:stop][self.rank :: self.world_size]]

    def sizes(self) -> list[int]:
        """Images of each batch, over all workers."""
        return np.diff(self.starts()).tolist()  # type: ignore[no-any-return]


def train_loader(
    split: Split,
    transform: Callable[[Image.Image], Tensor],
    batches: ShuffledBatches,
    num_workers: int = 0,
    pinned: bool = False,
) -> DataLoader[Batch]:
    """Batches of a split, augmented in `num_workers` processes that stay from epoch to epoch (0: in this one).

    `pinned`: in memory that a GPU copies from while it computes.
    """
    return DataLoader(
        AugmentedSplit(split, transform, batches.seed),
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=_as_it_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pinned,
    )


def _as_it_is(batch: Any) -> Any:
    """AugmentedSplit gives whole batches."""
    return batch
