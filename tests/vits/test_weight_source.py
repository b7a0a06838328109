"""Weights as students take them, from timm's own models and from what is none."""

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tests.vits.inputs import images
from tvt_ray.errors import UsageError
from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits import build_student
from tvt_ray.vits.vit import ViTArch, ViTSpace
from tvt_ray.vits.weight_selection import heads_of, select_weights
from tvt_ray.vits.weight_source import parse_source, stages_of

SPACE = ViTSpace(image_size=32, embed_dim=(24,), depth=(2,), head_dim=(8,), mlp_ratio=(2,), patch_size=(8,))
ARCH = ViTArch(24, 2, 3, 2, 8, "patch", "token")


def timm_vit(seed=1, **changes):
    """Of ARCH's sizes, its weights all drawn: timm begins LayerScale, norms and biases with constants."""
    ensure_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    model = VisionTransformer(**{**sizes, "num_classes": 3, **changes}).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, 0, 0.3)
    return model


def source_of(model, class_names=("a", "b", "c")):
    heads = {name.removesuffix(".attn"): m.num_heads for name, m in model.named_modules() if hasattr(m, "num_heads")}
    return parse_source("it", model.state_dict(), heads, class_names)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"init_values": 0.3},  # LayerScale
        {"qkv_bias": False},
        {"no_embed_class": True},  # the class token has no position
        {"global_pool": "token", "fc_norm": True, "init_values": 0.3},
    ],
    ids=str,
)
def test_a_student_of_the_sizes_of_a_timm_vit_computes_what_it_does(changes):
    model, student = timm_vit(**changes), build_student(SPACE, ARCH, 3, seed=0)
    assert select_weights(source_of(model), student).left == ()
    with torch.no_grad():
        ours, theirs = student(images(SPACE)), model(images(SPACE))
    assert (ours - theirs).abs().max() <= (1e-4 if "init_values" in changes else 0)  # which is multiplied out
    assert theirs.std() > 0.1


@pytest.mark.parametrize("changes", [{"img_size": 64}, {"patch_size": 4}, {"img_size": 48, "no_embed_class": True}])
def test_positions_and_patches_are_resized_as_timm_does(changes):
    from timm.models.vision_transformer import checkpoint_filter_fn

    model, target = timm_vit(**changes), timm_vit(no_embed_class=changes.get("no_embed_class", False))
    student = build_student(SPACE, ARCH, 3, seed=0)
    select_weights(source_of(model), student)
    resized = checkpoint_filter_fn(model.state_dict(), target)
    # timm makes them in another order of axes
    assert (student.patch_embed.proj.weight - resized["patch_embed.proj.weight"]).abs().max() < 1e-5
    assert (student.pos_embed[:, 1:] - resized["pos_embed"][:, -16:]).abs().max() < 1e-5


def test_positions_of_registers_are_left_out():
    model, student = timm_vit(reg_tokens=4), build_student(SPACE, ARCH, 3, seed=0)
    select_weights(source_of(model), student)
    assert torch.equal(student.pos_embed[:, 1:], model.pos_embed[:, 5:])
    assert torch.equal(student.pos_embed[:, 0], model.pos_embed[:, 0])


def test_a_student_of_the_sizes_of_a_timm_pit_computes_what_it_does():
    ensure_torchvision()
    import timm

    space = SMALL_SPACES["pit"]
    arch = space.largest_arch(3)
    described, student = space.timm_model(arch), build_student(space, arch, 3, seed=0)
    torch.manual_seed(0)
    model = timm.create_model(described.architecture, num_classes=3, **described.model_args).eval()
    source = source_of(model)
    assert source.describe() == "it (pit, 1 + 2 + 1 blocks of {}, {}, {} channels)".format(*arch.widths)
    assert select_weights(source, student).left == ()
    with torch.no_grad():
        assert (student(images(space)) - model(images(space))).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"qk_norm": True}, "it is no plain ViT: it has blocks.0.attn.q_norm.weight, which blocks of students have no"),
        ({"mlp": "swiglu"}, "it is no plain ViT: it has no blocks.0.mlp.fc1.weight"),
    ],
    ids=str,
)
def test_blocks_that_compute_something_else_are_refused(changes, told):
    if changes.pop("mlp", None):
        from timm.layers import SwiGLU

        changes = {**changes, "mlp_layer": SwiGLU}
    with pytest.raises(UsageError, match=told):
        source_of(timm_vit(**changes))


def test_what_is_no_vit_is_refused_with_what_it_has():
    with pytest.raises(UsageError, match=r"it is no ViT: it has no blocks\.0\.attn\.qkv\.weight, .* but conv1\.weight"):
        parse_source("it", {"conv1.weight": torch.ones(3, 3)})


def test_matrices_that_do_not_fit_one_another_are_refused():
    state = timm_vit().state_dict()
    state["blocks.1.mlp.fc2.weight"] = torch.ones(24, 50)
    with pytest.raises(UsageError, match=r"blocks\.1\.mlp\.fc2\.weight is \(24, 50\), and \(24, 48\) would fit"):
        parse_source("it", state)


def test_values_that_are_not_finite_are_refused():
    state = timm_vit().state_dict()
    state["blocks.1.norm1.weight"][3] = float("nan")
    with pytest.raises(UsageError, match=r"NaN or infinite, in 1 of 32 tensors \(such as blocks\.1\.norm1\.weight\)"):
        parse_source("it", state, class_names=("a",))


def test_heads_that_are_not_said_have_64_channels_or_are_one():
    wide = timm_vit(embed_dim=128, num_heads=4)
    assert set(parse_source("it", wide.state_dict()).num_heads.values()) == {2}
    assert set(parse_source("it", timm_vit().state_dict()).num_heads.values()) == {1}


def test_the_digest_is_of_weights_heads_and_classes_and_not_of_names():
    model = timm_vit()
    first, state = source_of(model), model.state_dict()
    assert first.digest == parse_source("elsewhere", state, first.num_heads, ("a", "b", "c")).digest
    others = [
        source_of(timm_vit(seed=2)),
        source_of(model, ("a", "b", "d")),
        first.of_classes(("x",)),
        parse_source("it", state, dict.fromkeys(first.num_heads, 1), ("a", "b", "c")),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 5


def test_blocks_are_numbered_by_stage_and_number():
    names = [f"transformers.{s}.blocks.{n}.norm1.weight" for s in (1, 0) for n in (10, 9)]
    assert stages_of(names) == tuple(tuple(f"transformers.{s}.blocks.{n}" for n in (9, 10)) for s in (0, 1))
    assert stages_of(["conv.weight"]) == ()


def test_a_student_is_a_source_too():
    student = build_student(SPACE, ARCH, 3, seed=0)
    source = parse_source("it", student.state_dict(), heads_of(student))
    assert source.num_heads == {"blocks.0": 3, "blocks.1": 3}
    assert not [key for key in source.state if key.startswith("head.")]  # whose classes are not known
