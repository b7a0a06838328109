"""Which CNN teaches, and where its weights come from."""

from __future__ import annotations

from tvt_ray.storage.locations import AbsolutePath
from tvt_ray.strict import Pixels, Strict


class TeacherSettings(Strict):
    """Which CNN teaches, and where its weights come from; without weights it is trained on the dataset first."""

    name: str = "resnet20"  # a CIFAR ResNet, or any timm CNN as timm:NAME
    # file of a state dict that fits the whole teacher, classes included; None: it is trained first
    weights: AbsolutePath | None = None
    # what the training of a timm CNN starts from: published weights, none, or a file
    pretrained: bool | AbsolutePath = True
    # pixels along each side that the teacher sees; None: its own (32 for CIFAR ResNets)
    image_size: Pixels | None = None

    def untrained(self) -> TeacherSettings:
        """The same network with random weights, for who asks what it takes: that does not depend on them."""
        return self.with_(weights=None, pretrained=False)
