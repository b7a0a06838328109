"""The first stages of timm's ConvNets, as what stands before a student's blocks; timm calls such networks hybrid.

Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929) set a ViT on the stages of a ResNet. Here the ConvNet is any
of timm's that runs one stage after the other, and may come with weights that others trained.

Shape suffixes: B = images, C = channels, H, W = map axes, S = pixels along an axis.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.pieces import IMAGENET_MEAN, IMAGENET_STD

CONTAINERS = ("blocks", "stages")  # of stages in timm's ConvNets,
ROWS = (("layer1", "layer2", "layer3", "layer4"), ("s1", "s2", "s3", "s4"))  # or stages under names of their own
PROBE_SIZE = 64  # pixels of the images on which the order of modules is checked


class Trunk(nn.Module):
    """What a ConvNet of timm's computes up to the end of its k-th stage, under timm's names.

    It takes images as students do, ImageNet-normalised, and gives them to the ConvNet as that one's own normalisation
    has them. While it is `inherited`, BatchNorm keeps the statistics that it came with, in training too. While it is
    `frozen`, no gradient goes through it; through what comes before the end of `frozen_stages`, none ever does.
    """

    def __init__(self, network: str, num_stages: int) -> None:
        super().__init__()
        self.network, self.num_stages, self.inherited, self.frozen = network, num_stages, False, False
        self.frozen_stages = 0
        self.scale, self.shift = _renormalisation(network)
        for name, module in copy.deepcopy(_modules(network, num_stages)).items():
            self.add_module(name, module)
        self.to_empty(device=torch.empty(0).device)  # which `torch.device(…)` chooses

    @property
    def stage_modules(self) -> list[nn.Module]:
        """In the order in which they run."""
        return [self.get_submodule(name) for name in _checked(self.network)[1][: self.num_stages]]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, H, W)."""
        features = images.contiguous(memory_format=torch.channels_last)
        if self.scale is not None:
            scale, shift = (images.new_tensor(each)[:, None, None] for each in (self.scale, self.shift))
            features = features * scale + shift
        learns, num_fixed = torch.is_grad_enabled() and not self.frozen, len(self.fixed_modules)
        for number, module in enumerate((*self.early_modules, *self.stage_modules)):
            with torch.set_grad_enabled(learns and number >= num_fixed):
                features = module(features)
        return features

    @property
    def early_modules(self) -> list[nn.Module]:
        """What comes before the first stage."""
        first = _checked(self.network)[1][0].partition(".")[0]
        names = [name for name, _ in self.named_children()]
        return [self.get_submodule(name) for name in names[: names.index(first)]]

    @property
    def fixed_modules(self) -> list[nn.Module]:
        """What no gradient ever goes through."""
        return [*self.early_modules, *self.stage_modules[: self.frozen_stages]] if self.frozen_stages else []

    def infer(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, H, W), in the weights' precision."""
        return self(images.float()).to(images.dtype)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Trunk:
        """As of any module, but for BatchNorm while it is inherited."""
        super().train(mode)
        if self.inherited:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def inherit(self, network: nn.Module) -> None:
        """Takes the weights and statistics of a whole ConvNet of its kind. Raises KeyError for one of another kind."""
        state = network.state_dict()
        self.load_state_dict({key: state[key] for key in self.state_dict()})
        self.inherited = True


class TrunkFacts(NamedTuple):
    """What has to be known of a trunk before it is built."""

    channels: int
    stride: int  # pixels from one place of its map to the next
    params: int
    flops: int  # multiply-accumulates of convolutions and Linears for one image
    activations: int  # numbers that its modules read and write for one image, weights aside


@functools.cache
def trunk_facts(network: str, num_stages: int, image_size: int = 224) -> TrunkFacts:
    """Counted on a trunk without numbers. Raises UsageError for a network that has no such stages."""
    with torch.device("meta"):
        trunk = Trunk(network, num_stages).eval()
        images = torch.empty(1, 3, image_size, image_size)
    values, counter = 0, FlopCounterMode(display=False)

    def count(module: nn.Module, args: Any, output: Tensor) -> None:
        nonlocal values
        values += args[0].numel() + output.numel()

    hooks = [each.register_forward_hook(count) for each in trunk.modules() if not list(each.children())]
    with torch.no_grad(), counter:
        features = trunk(images)
    for hook in hooks:
        hook.remove()
    stride = round(image_size / features.shape[-1])
    params = sum(parameter.numel() for parameter in trunk.parameters())
    return TrunkFacts(features.shape[1], stride, params, counter.get_total_flops() // 2, values)


def num_stages_of(network: str) -> int:
    """Stages that a trunk may have at most. Raises UsageError for a network that does not run stage after stage."""
    return len(_checked(network)[1])


def first_conv_of(network: str) -> str:
    """The name of its first convolution."""
    modules = _checked(network)[0].named_modules()
    return next(str(name) for name, module in modules if isinstance(module, nn.Conv2d))


def _modules(network: str, num_stages: int) -> dict[str, nn.Module]:
    """Without numbers: what comes before the stages, and so many of those, in the order in which they run."""
    model, stages = _checked(network)
    if not 1 <= num_stages <= len(stages):
        raise UsageError(f"timm:{network} has {len(stages)} stages; a stem of {num_stages} was asked for")
    before = [name for name, _ in model.named_children()]
    container = stages[0].partition(".")[0]
    before = before[: before.index(container)]
    found = {name: model.get_submodule(name) for name in before}
    if "." in stages[0]:
        return {**found, container: model.get_submodule(container)[:num_stages]}
    return {**found, **{name: model.get_submodule(name) for name in stages[:num_stages]}}


@functools.cache
def _checked(network: str) -> tuple[Any, tuple[str, ...]]:
    """The model without numbers, and the names of its stages, once it was seen that they run one after the other."""
    ensure_torchvision()
    import timm

    if not timm.is_model(network.partition(".")[0]):
        raise UsageError(f"timm has no model {network!r} whose stages could be a stem")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model = timm.create_model(network, num_classes=0).eval()
        stages = _stage_names(model)
        runs_in_order = bool(stages) and _run_in_order(model, stages)
    if not runs_in_order:
        raise UsageError(
            f"timm:{network} does not run one stage of convolutions after the other, so a stem cannot be cut from it; "
            "tf_efficientnet_lite0, mobilenetv3_small_100, resnet18, regnety_002 and convnext_atto do"
        )
    return model.to("meta"), stages


def _stage_names(model: Any) -> tuple[str, ...]:
    children = dict(model.named_children())
    for name in CONTAINERS:
        if isinstance(children.get(name), nn.Sequential):
            return tuple(f"{name}.{i}" for i in range(len(children[name])))
    return next((names for names in ROWS if all(name in children for name in names)), ())


@torch.no_grad()
def _run_in_order(model: Any, stages: tuple[str, ...]) -> bool:
    """Whether modules in their order give, stage by stage, what the model itself computes."""
    seen: list[Any] = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(output))
        for name in stages
    ]
    images = torch.randn(2, 3, PROBE_SIZE, PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    features, first = images, stages[0].partition(".")[0]
    try:
        model.forward_features(images)
        for hook in hooks:
            hook.remove()
        for name, module in model.named_children():
            if name == first:
                break
            features = module(features)
        for name, output in zip(stages, seen, strict=True):
            features = model.get_submodule(name)(features)
            if features.ndim != 4 or not torch.equal(features, output):
                return False
    except Exception:  # of a network that is given what it does not take, any
        return False
    return True


def _renormalisation(network: str) -> tuple[Any, Any]:
    """Factor and summand by channel that make ImageNet-normalised values those of a network; None, None: they are."""
    config = _checked(network)[0].pretrained_cfg
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return (None, None) if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD) else renormalisation(mean, std)


def renormalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Factor and summand by channel that make ImageNet-normalised values those of another mean and deviation."""
    scale = tuple(own / s for own, s in zip(IMAGENET_STD, std, strict=True))
    shift = tuple((own - m) / s for own, m, s in zip(IMAGENET_MEAN, mean, std, strict=True))
    return scale, shift
