"""Which of a training's weights become the student."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

Weights = Literal["auto", "best", "last", "ema"]
State = dict[str, Tensor]
# Below this a validation accuracy near 50 % has a standard error of over a point, and its best epoch is a lucky one
# (on ants and bees, 24 images, the last epoch was the better one on the test split in 8 trainings of 10).
FEW_IMAGES = 2500


def resolve_weights(weights: Weights, num_val: int, has_ema: bool) -> Weights:
    """What `auto` stands for: the average where there is one and validation is small, then the last; else the best."""
    if weights != "auto":
        return weights
    if num_val >= FEW_IMAGES:
        return "best"
    return "ema" if has_ema else "last"


class Selection:
    """The weights that are kept so far, and the validation accuracy (percent) that they have.

    best: of the epoch that did best on validation, of equals the later one. last: of the last epoch. ema: the moving
    average after the last epoch.
    """

    def __init__(self, rule: Weights) -> None:
        self.rule, self.val_acc, self.epoch = rule, -1.0, 0
        self.state: State = {}

    def offer(self, epoch: int, val_acc: float, state: Mapping[str, Tensor]) -> None:
        """The weights after an epoch (counted from 1): the student's own or, for `ema`, their average's."""
        if self.rule == "best" and val_acc < self.val_acc:
            return
        self.epoch, self.val_acc, self.state = epoch, val_acc, copy.deepcopy(dict(state))

    def state_dict(self) -> dict[str, Any]:
        """Loads with weights_only=True."""
        return {"rule": self.rule, "val_acc": self.val_acc, "epoch": self.epoch, "state": self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state_dict` was taken."""
        self.rule, self.val_acc, self.epoch = state["rule"], state["val_acc"], state["epoch"]
        self.state = dict(state["state"])
