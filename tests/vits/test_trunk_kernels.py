"""Convolutions of a trunk that trains on a CPU: they compute what timm's modules do, and the same gradients."""

import copy

import pytest
import torch
from torch import nn

from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import trunk_kernels
from tvt_ray.vits.trunk_kernels import _convolve, speed_up
from tvt_ray.vits.trunks import Trunk

ensure_torchvision()
import timm  # noqa: E402

pytestmark = pytest.mark.slow  # networks of timm's

LITE = "tf_efficientnet_lite0"


def trunk_of(name, count=5, seed=0):
    """Inherited, with statistics and factors that are no identity."""
    torch.manual_seed(seed)
    network = timm.create_model(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    trunk = Trunk(name, count)
    trunk.inherit(network)
    return trunk.train()


def learned(trunk, images):
    """What it computes, and the gradients of its weights by name."""
    trunk.zero_grad()
    found = trunk(images)
    found.float().square().mean().backward()
    return found.detach(), {name: each.grad.clone() for name, each in trunk.named_parameters()}


def pixels(count=2, size=64, dtype=torch.float32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize(
    ("name", "count", "folded"),
    [
        (LITE, 5, 33),
        ("resnet18", 2, 10),
        ("regnety_002", 2, 9),
        ("mobilenetv3_small_100", 2, 9),
        ("convnext_atto", 2, 0),
    ],
)
def test_folding_leaves_what_is_computed_and_every_gradient(name, count, folded):
    """In float64, where nothing hides behind rounding: not even at the ends of ReLU6."""
    plain = trunk_of(name, count).double()
    fast = copy.deepcopy(plain)
    assert speed_up(fast.float()) == folded
    fast.double()
    fast.load_state_dict(plain.state_dict())
    (wanted, gradients), (found, others) = (learned(each, pixels(dtype=torch.float64)) for each in (plain, fast))
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    assert gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        assert torch.allclose(others[key], gradient, rtol=1e-6, atol=1e-9 * float(gradient.abs().max())), key
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_a_norm_whose_convolution_others_read_as_well_is_not_folded():
    """In front of a residual sum the maps before and after the norm are both used."""

    class Both(Trunk):
        def forward(self, images):
            maps = self.conv_stem(images)
            return maps + self.bn1(maps)

    trunk = Both("mobilenetv3_small_100", 1)
    trunk.inherit(timm.create_model("mobilenetv3_small_100"))
    with torch.no_grad():
        trunk.bn1.running_mean.fill_(1.0)
    before = trunk.eval()(pixels())
    assert speed_up(trunk) == 0
    assert torch.equal(trunk(pixels()), before)
    assert trunk.bn1.forward.__func__ is type(trunk.bn1).forward


@pytest.mark.parametrize("at_once", [1, 4 * 8 * 12 * 12 * 2, 2**30], ids=["one image", "two images", "all"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_depthwise_convolution_s_gradients_are_float32_s_in_mixed_precision(kernel, stride, at_once, monkeypatch):
    """Maps and what comes out are bfloat16; nothing else is rounded on the way back, but what goes to the maps.

    However many images are gone back over at once.
    """
    monkeypatch.setattr(trunk_kernels, "BYTES_AT_ONCE", at_once)
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8)
    maps = torch.randn(5, 8, 12, 12).bfloat16()
    given = maps.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = _convolve(conv, None, given)
    assert found.dtype == torch.bfloat16
    gradient = torch.randn(found.shape).bfloat16()
    found.backward(gradient)
    exact = maps.float().requires_grad_()
    wanted = torch.autograd.grad(conv(exact), (exact, conv.weight, conv.bias), gradient.float())
    assert torch.allclose(conv.weight.grad, wanted[1], atol=1e-4)
    assert torch.allclose(conv.bias.grad, wanted[2], atol=1e-4)
    assert torch.equal(given.grad, wanted[0].bfloat16())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(_convolve(conv, None, maps), found)


def test_statistics_that_move_are_not_folded_and_copies_have_weights_of_their_own():
    drawn = Trunk("resnet18", 2)
    for module in drawn.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert speed_up(drawn) == 0
    before = drawn.bn1.running_mean.clone()
    drawn.train()(pixels())
    assert not torch.equal(drawn.bn1.running_mean, before)

    trunk = trunk_of("resnet18", 2)
    speed_up(trunk)
    other, before = copy.deepcopy(trunk), trunk(pixels())
    with torch.no_grad():
        other.bn1.weight.mul_(2)
        other.conv1.weight.mul_(2)
    assert torch.equal(trunk(pixels()), before)
    assert not torch.allclose(other(pixels()), before)
