"""Images that are there more than once without being the same file: recompressed, resized, turned, a frame later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SIDE, HASH_SIDE = 32, 8  # pixels of what is compared; frequencies of a hash, as in imagehash's phash
MOST_BITS = 12  # of 64 that differ, in those that are looked at closer
MOST_RMS = 20.0  # levels of 255 by which those differ that count as one, at SIDE pixels, and
LEAST_CORRELATION = 0.9  # of their pixels
LEAST_SPREAD = 4.0  # standard deviation in levels: emptier images look like one another
ROWS, PAIRS = 1024, 50_000  # compared at a time


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width, 3) -> (SIDE, SIDE, 3), whatever its shape was."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def perceptual_hashes(grey: NDArray[np.floating]) -> NDArray[np.bool_]:
    """pHash of (n, SIDE, SIDE): which of the lowest 8 x 8 frequencies are above their median: (n, 8, 8).

    As imagehash's `phash` (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions").
    """
    return _bits(_low(grey))


def _low(grey: NDArray[np.floating]) -> NDArray[np.floating]:
    found: NDArray[np.floating] = dctn(grey, axes=(1, 2))[:, :HASH_SIDE, :HASH_SIDE]
    return found


def _bits(low: NDArray[np.floating]) -> NDArray[np.bool_]:
    bits: NDArray[np.bool_] = low > np.median(low, axis=(1, 2), keepdims=True)
    return bits


def near_groups(thumbnails: NDArray[np.uint8], hashes: Sequence[str]) -> NDArray[np.int64]:
    """For each image the number of its group: connected by being nearly alike, in any of the eight orientations.

    `thumbnails`: (n, SIDE, SIDE, 3); `hashes`: of the files, of which equal ones are one image. (n,) int64.
    """
    _, same = np.unique(np.asarray(hashes), return_inverse=True)
    _, first = np.unique(same, return_index=True)
    found = _Pairs(thumbnails[first]).near()
    graph = coo_matrix((np.ones(len(found)), (found[:, 0], found[:, 1])), (len(first), len(first)))
    _, groups = connected_components(graph, directed=False)
    whole: NDArray[np.int64] = groups.astype(np.int64)[same]
    return whole


@dataclass(frozen=True)
class _Pairs:
    thumbnails: NDArray[np.uint8]

    @cached_property
    def _means(self) -> torch.Tensor:
        """(n, 3) in levels."""
        return torch.from_numpy(self.thumbnails.mean((1, 2))).float()

    @cached_property
    def _centred(self) -> torch.Tensor:
        """(n, 3, SIDE, SIDE) in levels, each channel's mean taken off."""
        images = torch.from_numpy(self.thumbnails).permute(0, 3, 1, 2).float()
        return images - images.mean((2, 3), keepdim=True)

    def near(self) -> NDArray[np.int64]:
        """(pairs, 2) of numbers, the smaller one first."""
        grey = self.thumbnails.mean(3)
        told = np.flatnonzero(grey.std((1, 2)) >= LEAST_SPREAD)
        if len(told) < 2:
            return np.zeros((0, 2), np.int64)
        low = _low(grey[told])
        ours = torch.from_numpy(_signs(low))
        found = [np.zeros((0, 2), np.int64)]
        for turn in range(8):
            theirs = torch.from_numpy(_signs(_turned_frequencies(low, turn)))
            for start in range(0, len(told), ROWS):
                agreeing = ours[start : start + ROWS] @ theirs[start:].T  # bits that agree less those that differ
                rows, columns = torch.nonzero(agreeing >= ours.shape[1] - 2 * MOST_BITS, as_tuple=True)
                pairs = torch.stack([rows, columns], 1)[columns > rows] + start
                for some in torch.split(pairs, PAIRS):  # type: ignore[no-untyped-call]
                    numbers = told[some.numpy()]
                    found.append(numbers[self._alike(numbers[:, 0], numbers[:, 1], turn).numpy()])
        return np.unique(np.concatenate(found), axis=0)

    def _alike(self, first: NDArray[np.int64], second: NDArray[np.int64], turn: int) -> torch.Tensor:
        a, b = self._centred[first], _turned(self._centred[second], turn)
        dots, squares = (a * b).sum((1, 2, 3)), (a * a).sum((1, 2, 3)) * (b * b).sum((1, 2, 3))
        shift = (self._means[first] - self._means[second]).square().mean(1)
        rms = ((a - b).square().mean((1, 2, 3)) + shift).sqrt()
        return (dots >= LEAST_CORRELATION * squares.sqrt()) & (rms <= MOST_RMS)


def _signs(low: NDArray[np.floating]) -> NDArray[np.float32]:
    return (2.0 * _bits(low).reshape(len(low), -1) - 1).astype(np.float32)


def _turned(images: torch.Tensor, turn: int) -> torch.Tensor:
    """One of the eight orientations of (..., height, width); 0 is the image's own."""
    images = images.transpose(-1, -2) if turn & 4 else images
    return images.flip([axis for axis, bit in ((-1, 1), (-2, 2)) if turn & bit])


def _turned_frequencies(low: NDArray[np.floating], turn: int) -> NDArray[np.floating]:
    """Those of `_turned` images: a mirror image has the odd ones with another sign."""
    low = low.transpose(0, 2, 1) if turn & 4 else low
    odd = (-1.0) ** np.arange(HASH_SIDE)
    low = low * odd[None, None, :] if turn & 1 else low
    return low * odd[None, :, None] if turn & 2 else low
