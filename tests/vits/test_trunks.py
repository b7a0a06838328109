"""Stages of timm's ConvNets as a student's stem, held against timm's own networks."""

import itertools

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import build_student
from tvt_ray.vits.pieces import Cost
from tvt_ray.vits.trunks import Trunk, first_conv_of, num_stages_of, trunk_facts
from tvt_ray.vits.vit import ViTSpace

ensure_torchvision()
import timm  # noqa: E402

pytestmark = pytest.mark.slow  # a network of timm's, or many fits

NETWORK = "mobilenetv3_small_050"
SPACE = ViTSpace(
    image_size=64,
    embed_dim=(24,),
    depth=(1, 2),
    head_dim=(12,),
    mlp_ratio=(2,),
    patch_size=(16, 32),
    stem=("conv", "stage1", "stage3"),
    backbone=NETWORK,
)


def pixels(count=2, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def normalised(images, mean, std):
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@torch.no_grad()
def stage_of(network, stage, images):
    """What timm's network itself computes up to a stage."""
    seen = []
    hook = network.get_submodule(stage).register_forward_hook(lambda module, args, output: seen.append(output))
    network.forward_features(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("name", "count", "stage"),
    [
        ("tf_efficientnet_lite0", 5, "blocks.4"),  # whose normalisation is not ImageNet's
        (NETWORK, 3, "blocks.2"),
        ("resnet10t", 2, "layer2"),
        ("regnetx_002", 2, "s2"),
        ("convnext_atto", 2, "stages.1"),
    ],
)
def test_a_trunk_computes_what_timms_network_does(name, count, stage):
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    trunk = Trunk(name, count).eval()
    trunk.inherit(network)
    config, images = network.pretrained_cfg, pixels()
    with torch.no_grad():
        found = trunk(normalised(images, IMAGENET_MEAN, IMAGENET_STD))
    wanted = stage_of(network, stage, normalised(images, config["mean"], config["std"]))
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
    facts = trunk_facts(name, count, 64)
    assert (facts.channels, facts.stride) == (found.shape[1], 64 // found.shape[-1])
    assert facts.params == sum(parameter.numel() for parameter in trunk.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trunk(images[:1])
    assert facts.flops == counter.get_total_flops() // 2


def test_stages_and_first_convolutions_by_family():
    assert [num_stages_of(name) for name in ("tf_efficientnet_lite0", "resnet10t", NETWORK)] == [7, 4, 6]
    assert first_conv_of("resnet10t") == "conv1.0"
    strides = [trunk_facts("tf_efficientnet_lite0", count).stride for count in range(1, 8)]
    assert strides == [2, 4, 8, 16, 16, 32, 32]
    assert trunk_facts("tf_efficientnet_lite0", 5, 128)[:4] == (112, 16, 700_768, 79_434_752)


@pytest.mark.parametrize("name", ["densenet121", "vit_tiny_patch16_224"])
def test_networks_that_do_not_run_stage_after_stage_are_refused(name):
    with pytest.raises(UsageError, match=f"^timm:{name} does not run one stage of convolutions after the other"):
        num_stages_of(name)


def test_spaces_name_what_is_wrong_with_a_stem():
    settings = SPACE.model_dump()
    for changes, message in (
        ({"backbone": None}, "the stem 'stage1' needs a backbone"),
        ({"backbone": "resnet19"}, "timm has no model 'resnet19'"),
        ({"stem": ("stage8",)}, f"timm:{NETWORK} has 6 stages; a stem of 8 was asked for"),
        ({"stem": ("stage5",), "patch_size": (16,)}, "has a place every 32 pixels, so every patch_size is a multiple"),
    ):
        with pytest.raises(ValueError, match=message):
            ViTSpace(**{**settings, **changes})


def test_arithmetic_equals_the_built_students_and_ids_tell_cuts_apart():
    archs = list(SPACE.enumerate())
    assert len({SPACE.arch_id(arch) for arch in archs}) == len(archs) == SPACE.size()
    for arch in itertools.islice(archs, 0, None, 3):
        student = build_student(SPACE, arch, 5, seed=0)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = student(pixels(1))
        flops = counter.get_total_flops() // 2
        with torch.no_grad():
            fused = student.feature_maps(pixels(1), (0,), fused=True)[0]
        assert logits.isfinite().all()
        assert torch.allclose(fused, student.feature_maps(pixels(1), (0,))[0], atol=1e-4)
        assert SPACE.cost(arch, 5) == Cost(sum(parameter.numel() for parameter in student.parameters()), flops)
    assert SPACE.cost(archs[0], 5) != SPACE.cost(archs[-1], 5)
    names = {f"has_{stem}_stem" for stem in SPACE.stem}
    assert all(names <= SPACE.features(arch).keys() for arch in archs)


def test_a_student_s_drawn_weights_are_its_own_and_statistics_begin_plain():
    arch = next(arch for arch in SPACE.enumerate() if arch.stem == "stage3")
    first, again, other = (build_student(SPACE, arch, 5, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    conv = "patch_embed.backbone.conv_stem.weight"
    assert not torch.equal(first[conv], other[conv])
    assert torch.equal(first["patch_embed.backbone.bn1.running_var"], torch.ones(16))
    assert all(value.isfinite().all() for value in first.values())


def test_inherited_statistics_stay_and_a_frozen_trunk_has_no_gradient():
    trunk = Trunk(NETWORK, 3)
    trunk.inherit(timm.create_model(NETWORK))
    before = {key: value.clone() for key, value in trunk.state_dict().items() if "running" in key}
    trunk.train()
    trunk(pixels()).sum().backward()
    assert all(torch.equal(trunk.state_dict()[key], value) for key, value in before.items())
    assert trunk.conv_stem.weight.grad.abs().sum() > 0
    trunk.frozen = True
    assert not trunk(pixels()).requires_grad
    drawn = Trunk(NETWORK, 3)
    drawn.load_state_dict(trunk.state_dict())
    drawn.train()(pixels())
    assert not torch.equal(drawn.bn1.running_mean, before["bn1.running_mean"])


def test_another_network_has_nothing_to_lend():
    with pytest.raises(KeyError):
        Trunk(NETWORK, 3).inherit(timm.create_model("resnet10t"))


def test_costs_of_a_hybrid_are_the_trunk_s_and_the_rest():
    arch = next(arch for arch in SPACE.enumerate() if arch.stem == "stage3" and arch.patch_size == 16)
    facts, tokens = trunk_facts(NETWORK, 3, 64), 16
    stem = SPACE.parts(arch, 5)[0]
    kernel = 16 // facts.stride
    projection = facts.channels * kernel**2 * 24
    assert stem.cost == Cost(facts.params + projection + 24 + (tokens + 2) * 24, facts.flops + tokens * projection)
