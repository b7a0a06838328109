"""What was computed of views of images that come again, kept in memory up to a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tvt_ray.training.loaders import Key

BYTES = 2 * 2**30  # of all that is kept, at most: what does not fit is computed again


class Kept:
    """Tensors of one image each, by who made them and by view and place of the image."""

    def __init__(self, keeps: bool, limit: int = BYTES) -> None:
        """`keeps`: whether anything is kept at all, for images that do not come again are not worth it."""
        self.keeps, self.limit, self.used = keeps, limit, 0  # bytes
        self._of: dict[tuple[str, Key], list[Tensor]] = {}

    def has(self, name: str, key: Key) -> bool:
        """Whether what one made of an image is kept."""
        return (name, key) in self._of

    def of(
        self, name: str, keys: Sequence[Key], make: Callable[[Tensor], list[Tensor]], images: Tensor
    ) -> list[Tensor]:
        """What `make` gives of images, tensors (B, ...); computed where it is not kept of all of them."""
        if keys and all(self.has(name, key) for key in keys):
            return [torch.stack(each) for each in zip(*(self._of[name, key] for key in keys), strict=True)]
        made = make(images)
        if self.keeps:
            for place, key in enumerate(keys):
                self._keep((name, key), [each[place] for each in made])
        return made

    def _keep(self, at: tuple[str, Key], tensors: list[Tensor]) -> None:
        size = sum(each.numel() * each.element_size() for each in tensors)
        if at not in self._of and self.used + size <= self.limit:
            self._of[at] = [each.clone() for each in tensors]
            self.used += size
