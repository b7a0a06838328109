"""A trunk's convolutions as training on a CPU is fastest; what they compute, and its gradients, stay what they were.

A convolution takes the BatchNorm behind it into its weights while that one keeps its statistics: activations are passed
over once less, forward and backward. In mixed precision a depthwise convolution's gradients are computed in float32:
oneDNN has fast ones in bfloat16 for 3 x 3 kernels of stride 1 alone, and takes five to fifty times as long for others.
`python -m benchmarks trunk` times it.

Shape suffixes: B = images, C = channels, H, W = map axes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.trunks import Trunk

PROBE_SIZE = 64  # pixels of the image on which it is seen what follows what
BYTES_AT_ONCE = 2**23  # of float32 maps, in backward
TOLERANCE = 1e-3  # of the largest value, to which a trunk computes the same with BatchNorm folded


@torch.no_grad()
def speed_up(trunk: Trunk) -> int:
    """Replaces how its convolutions are computed, and folds BatchNorm where it is inherited: how many are folded.

    Copies that are made later keep it, each with its own weights. Weights, their names and their gradients stay.
    """
    convs = [module for module in trunk.modules() if _is_plain(module)]
    image = torch.randn(1, 3, PROBE_SIZE, PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    image = image.to(next(trunk.parameters()).device)
    was_training, pairs = trunk.training, dict[nn.Module, nn.Module]()
    trunk.eval()
    before = _seen(trunk, image, pairs)
    norms = pairs if trunk.inherited else {}
    for conv in convs:
        conv.forward = functools.partial(_convolve, conv, norms.get(conv))
    for norm in norms.values():
        norm.forward = functools.partial(_activate, norm)
    if not torch.allclose(trunk(image), before, atol=TOLERANCE * float(before.abs().max())):  # used elsewhere as well
        for module in (*convs, *norms.values()):
            del module.forward
        norms = {}
    trunk.train(was_training)
    return len(norms)


def _is_plain(module: nn.Module) -> bool:
    """Whether it is a convolution whose weights are used as they are."""
    ensure_torchvision()
    from timm.layers import Conv2dSame

    if type(module) is Conv2dSame:
        return True
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _is_norm(module: nn.Module) -> bool:
    from timm.layers import BatchNormAct2d

    if not isinstance(module, nn.BatchNorm2d) or type(module) not in (nn.BatchNorm2d, BatchNormAct2d):
        return False
    return module.affine and module.track_running_stats


def _seen(trunk: Trunk, image: Tensor, pairs: dict[nn.Module, nn.Module]) -> Tensor:
    """What the trunk makes of an image. `pairs` gets each convolution whose result goes to a BatchNorm, with that."""
    makers: dict[int, tuple[nn.Module, Tensor]] = {}  # by the tensor, which is held so that no other gets its place

    def made(conv: nn.Module, args: Any, output: Tensor) -> None:
        makers[id(output)] = conv, output

    def given(norm: nn.Module, args: Any) -> None:
        if id(args[0]) in makers:
            pairs[makers[id(args[0])][0]] = norm

    hooks = [module.register_forward_hook(made) for module in trunk.modules() if _is_plain(module)]
    hooks += [module.register_forward_pre_hook(given) for module in trunk.modules() if _is_norm(module)]
    result: Tensor = trunk(image).clone()
    for hook in hooks:
        hook.remove()
    return result


def _convolve(conv: Any, norm: Any, maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C', H', W')."""
    from timm.layers import pad_same

    weight, bias, padding = conv.weight, conv.bias, conv.padding
    if norm is not None:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = norm.bias + scale * ((0 if bias is None else bias) - norm.running_mean)
    if type(conv) is not nn.Conv2d:
        maps, padding = pad_same(maps, conv.kernel_size, conv.stride, conv.dilation), (0, 0)
    sizes = (conv.stride, padding, conv.dilation, conv.groups)
    if conv.groups > 1 and maps.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
        precision = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return _Float32Gradients.apply(maps.to(precision), weight, bias, *sizes)  # type: ignore[no-any-return,no-untyped-call]
    return F.conv2d(maps, weight, bias, *sizes)


def _activate(norm: Any, maps: Tensor) -> Tensor:
    """What a folded BatchNorm of timm's still does."""
    return maps if type(norm) is nn.BatchNorm2d else norm.act(norm.drop(maps))  # type: ignore[no-any-return]


class _Float32Gradients(torch.autograd.Function):
    """A convolution in the precision of its maps, with weights and gradients in float32."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Any) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.sizes = sizes
        return F.conv2d(maps, weight.to(maps.dtype), None if bias is None else bias.to(maps.dtype), *sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Of some images at a time, so that what is of float32 stays in the caches."""
        (maps, weight), (stride, padding, dilation, groups) = ctx.saved_tensors, ctx.sizes
        num_parts = min(math.ceil(4 * max(maps.numel(), gradients[0].numel()) / BYTES_AT_ONCE), len(maps))
        parts = zip(maps.tensor_split(num_parts), gradients[0].tensor_split(num_parts), strict=True)
        found = [
            torch.ops.aten.convolution_backward(
                gradient.float(),
                some.float(),
                weight,
                [len(weight)],
                list(stride),
                list(padding),
                list(dilation),
                False,
                [0, 0],
                groups,
                list(ctx.needs_input_grad[:3]),
            )
            for some, gradient in parts
        ]
        of_maps, *of_rest = zip(*found, strict=True)
        joined = None if of_maps[0] is None else torch.cat([each.to(maps.dtype) for each in of_maps])
        sums = [None if each[0] is None else torch.stack(each).sum(0) for each in of_rest]
        return joined, *sums, *(None,) * len(ctx.sizes)
