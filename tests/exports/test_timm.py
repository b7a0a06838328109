"""A student's folder as timm reads it: the same outputs to the last bit, and all that timm's own ViTs offer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.conftest import SMALL_SPACES
from tests.data.samples import picture
from tests.exports.conftest import CLASSES, write_folder
from tvt_ray.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from tvt_ray.exports import timm_vit
from tvt_ray.exports.folder import load_student
from tvt_ray.vits import SPACES, Space
from tvt_ray.vits.autoformer import AutoFormerArch, AutoFormerSpace
from tvt_ray.vits.pit import PiTArch, PiTSpace
from tvt_ray.vits.vit import ViTArch, ViTSpace

import timm  # isort: skip (it needs what timm_vit makes sure of)

AUTOFORMER = SMALL_SPACES["autoformer"].model_dump()
SUPERNET = AutoFormerSpace(**AUTOFORMER | {"embed_dim": (25,), "head_dim": 16, "relative_position": True})
FIXED_HEADS = AutoFormerSpace(**AUTOFORMER | {"embed_dim": (25,), "head_dim": 16})
RELATIVE = AutoFormerSpace(**AUTOFORMER | {"relative_position": True})
BY_BLOCK, ALIKE = AutoFormerArch(24, (3, 2, 3), (2.0, 1.5, 1.5)), AutoFormerArch(24, (3, 3), (1.5, 1.5))
WIDE_VIT = ViTSpace(
    image_size=48, embed_dim=(24, 36), depth=(2,), head_dim=(12,), mlp_ratio=(1.5, 3), patch_size=(4, 12)
)
WIDE_PIT = PiTSpace(image_size=40, patch_size=12, stride=4, base_dim=(8,), num_heads=(1, 2, 4), depth=((2, 1, 3),))

HYBRID = ViTSpace(
    image_size=64,
    embed_dim=(24,),
    depth=(1,),
    head_dim=(12,),
    mlp_ratio=(2,),
    patch_size=(16,),
    stem=("stage1", "stage3"),
    backbone="tf_efficientnet_lite0",
)
POOLS = [(patch, pool) for patch in (4, 12) for pool in ("token", "mean")]

# space, architecture, and the model that timm builds
CASES = [
    (SMALL_SPACES["autoformer"], BY_BLOCK, "tvt_vit"),
    (SMALL_SPACES["autoformer"], ALIKE, "vit_tiny_patch16_224"),
    (SUPERNET, AutoFormerArch(25, (3, 2, 3), (2.0, 1.5, 1.5)), "tvt_vit"),
    (FIXED_HEADS, AutoFormerArch(25, (3, 3), (2.0, 2.0)), "tvt_vit"),
    (RELATIVE, ALIKE, "tvt_vit"),
    *[(WIDE_PIT, PiTArch(8, (2, 1, 3), heads, 2), "pit_ti_224") for heads in ((1, 2, 4), (2, 2, 2))],
    (WIDE_PIT, PiTArch(8, (2, 1, 3), (1, 1, 4), 8), "pit_ti_224"),
    *[(WIDE_VIT, ViTArch(24, 2, 2, 1.5, patch, "patch", pool), "vit_tiny_patch16_224") for patch, pool in POOLS],
    *[(WIDE_VIT, ViTArch(36, 2, 3, 3, patch, "conv", pool), "tvt_vit") for patch, pool in POOLS],
    (HYBRID, ViTArch(24, 1, 2, 2, 16, "stage1", "token"), "tvt_vit"),
    (HYBRID, ViTArch(24, 1, 2, 2, 16, "stage3", "mean"), "tvt_vit"),
]
STOCK = [case for case in CASES if case[2] != timm_vit.OWN_VIT]


def images_of(space, count=7):
    return torch.randn(count, 3, space.image_size, space.image_size, generator=torch.Generator().manual_seed(0))


def from_timm(folder, **kwargs):
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


def test_every_space_of_the_package_is_known_to_timm():
    assert all(space.timm_model is not Space.timm_model for space in SPACES.values())


@pytest.mark.parametrize(("space", "arch", "architecture"), CASES, ids=[case[0].arch_id(case[1]) for case in CASES])
def test_timm_gives_the_same_logits_from_the_same_file(space, arch, architecture, tmp_path):
    """To the last bit; but where there is no class token timm sums the mean of the tokens in another order."""
    folder = write_folder(tmp_path / "s", space, arch)
    student, model = load_student(folder), from_timm(folder)
    assert json.loads((folder / "config.json").read_text())["architecture"] == architecture
    with torch.no_grad():
        for count in (1, 7):
            difference = model(images_of(space, count)) - student(images_of(space, count))
            assert difference.abs().max() <= (1e-6 if getattr(arch, "pool", "token") == "mean" else 0)


def test_untrained_models_of_timm_have_the_parameters_that_the_arguments_say(space, tmp_path):
    """No weights, and a classifier of another number of classes: every parameter is initialised."""
    import timm

    folder = write_folder(tmp_path / "s", space)
    torch.manual_seed(0)
    model = timm.create_model(f"local-dir:{folder}", pretrained=False, num_classes=9)
    cost = space.cost(load_student(folder).card.arch, 9)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.params
    assert model(images_of(space)).shape == (7, 9)
    assert all(parameter.abs().max() < 10 for parameter in model.parameters())


@pytest.mark.slow
def test_stock_models_load_with_timms_code_alone(tmp_path):
    """In a process that has nothing of this package."""
    folders = [write_folder(tmp_path / str(number), space, arch) for number, (space, arch, _) in enumerate(STOCK)]
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from vision_compat import ensure_torchvision\n"
        "ensure_torchvision()\n"
        "import timm\n"
        "for folder in sys.argv[2:]:\n"
        "    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()\n"
        "    print(model(torch.ones(1, *model.pretrained_cfg['input_size'])).tolist())\n"
        "assert not [name for name in sys.modules if name.startswith('tvt_ray')]\n"
    )
    (tmp_path / "compat").mkdir()
    shutil.copy(timm_vit.__file__.replace("exports/timm_vit.py", "vision_compat.py"), tmp_path / "compat")
    command = [sys.executable, script, tmp_path / "compat", *folders]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert len(printed) == len(folders)
    for folder, (space, _, _), line in zip(folders, STOCK, printed, strict=True):
        with torch.no_grad():
            own = load_student(folder)(torch.ones(1, 3, space.image_size, space.image_size))
        assert torch.allclose(torch.tensor(json.loads(line)), own, atol=1e-6)


def test_features_are_to_be_had_as_of_timms_own_models(student_folder, space):
    student, model, images = load_student(student_folder), from_timm(student_folder), images_of(space)
    num_taps = 3 if space.name == "pit" else student.student.num_blocks
    with torch.no_grad():
        last = student.student.feature_maps(images, [student.student.num_blocks - 1])
        maps = model.forward_intermediates(images, intermediates_only=True)
        features = model.forward_features(images)
        assert len(maps) == num_taps
        assert torch.equal(maps[-1], last[student.student.num_blocks - 1])
        assert torch.allclose(model.forward_head(features), student(images), atol=1e-6)
        config = json.loads((student_folder / "config.json").read_text())
        assert features.shape[-1] == model.num_features == config["num_features"]


def test_only_features(space, student_folder):
    indices = (0, 2) if space.name == "pit" else (0, 1)
    model = from_timm(student_folder, features_only=True, out_indices=indices)
    expected = from_timm(student_folder).forward_intermediates(images_of(space), indices, intermediates_only=True)
    found = model(images_of(space))
    assert model.feature_info.channels() == [maps.shape[1] for maps in expected]
    if space.name != "pit":  # of which timm's hooks give maps and class token as a pair
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_the_classifier_can_be_replaced(student_folder, space):
    model = from_timm(student_folder)
    model.reset_classifier(5)
    assert model(images_of(space)).shape == (7, 5)
    model.reset_classifier(0)
    assert model(images_of(space)).shape == (7, model.num_features)
    tuned = from_timm(student_folder, num_classes=4, drop_path_rate=0.1)  # the other weights are the student's
    own = load_student(student_folder).student.state_dict()
    assert tuned(images_of(space)).shape == (7, 4)
    assert torch.equal(tuned.pos_embed, own["pos_embed"])


def test_images_are_prepared_as_the_student_does(student_folder, space):
    from timm.data import create_transform, resolve_data_config

    student, config = load_student(student_folder), resolve_data_config(model=from_timm(student_folder))
    assert config["input_size"] == (3, space.image_size, space.image_size)
    assert (tuple(config["mean"]), tuple(config["std"])) == (IMAGENET_MEAN, IMAGENET_STD)
    transform = create_transform(**config, is_training=False)
    level = 1 / 255 / min(IMAGENET_STD)  # timm resizes photographs in whole levels, and crops afterwards
    square = picture(0, (64, 64))
    assert (transform(square) - student.transform(square)).abs().max() < level
    flat = Image.new("RGB", (90, 40), (200, 10, 30))
    assert torch.allclose(transform(flat), student.transform(flat), atol=1e-5)


def test_classes_and_weights_are_as_hubs_want_them(student_folder):
    model = from_timm(student_folder)
    assert tuple(model.pretrained_cfg["label_names"]) == CLASSES
    with safe_open(student_folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


class Hub:
    """What timm asks of the hub's client; what would be uploaded is kept."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, **kwargs):
        return self

    def create_repo(self, repo_id, **kwargs):
        self.repo_id = repo_id
        return self

    def file_exists(self, **kwargs):
        return False

    def upload_folder(self, folder_path, **kwargs):
        shutil.copytree(folder_path, self.kept)


def test_what_timm_would_push_to_the_hub_is_the_student(student_folder, space, tmp_path, monkeypatch):
    from timm.models import _hub, push_to_hf_hub

    monkeypatch.setattr(_hub, "HfApi", Hub(tmp_path / "pushed"), raising=True)
    push_to_hf_hub(from_timm(student_folder), "someone/student", safe_serialization=True)
    pushed = from_timm(tmp_path / "pushed")
    with torch.no_grad():
        assert torch.equal(pushed(images_of(space)), from_timm(student_folder)(images_of(space)))
    assert tuple(pushed.pretrained_cfg["label_names"]) == CLASSES
    assert "# Model card for student" in (tmp_path / "pushed" / "README.md").read_text()


def test_arguments_are_plain_values():
    pit = PiTSpace().timm_model(PiTArch(16, (1, 6, 6), (2, 4, 8), 2))
    assert pit.is_stock
    assert pit.model_args["base_dims"] == [16, 16, 16]
    assert pit.num_features == 128
    vit = ViTSpace().timm_model(ViTArch(96, 2, 3, 1, 16, "conv", "mean"))
    assert not vit.is_stock
    assert vit.model_args["stem"] == "conv"
    assert vit.first_conv == "patch_embed.backbone.convs.0"


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": [2, 3], "mlp_ratio": [1.5, 2.0]}


def test_it_is_a_model_of_timms():
    assert timm.is_model("tvt_vit")
    model = timm.create_model("tvt_vit", num_classes=5, **SMALL)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert [block.attn.num_heads for block in model.blocks] == [2, 3]
    assert [block.mlp.fc1.out_features for block in model.blocks] == [36, 48]


def test_without_lists_it_is_the_stock_model():
    torch.manual_seed(0)
    alike = SMALL | {"num_heads": 3, "mlp_ratio": 2.0}
    ours, theirs = (timm.create_model(name, **alike).eval() for name in ("tvt_vit", "vit_tiny_patch16_224"))
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))


def test_settings_of_timms_own_are_taken():
    model = timm.create_model("tvt_vit", drop_path_rate=0.2, dynamic_img_size=True, stem="conv", **SMALL).eval()
    assert model.blocks[1].drop_path1.drop_prob == pytest.approx(0.2)
    assert model(torch.zeros(1, 3, 48, 64)).shape == (1, 1000)
    grey = timm.create_model("tvt_vit", in_chans=1, stem="conv", **SMALL)
    assert grey(torch.zeros(1, 1, 32, 32)).shape == (1, 1000)


def test_pretrained_stems_take_images_of_other_channels_and_sizes(tmp_path):
    folder = write_folder(tmp_path / "s", WIDE_VIT, ViTArch(24, 2, 2, 1.5, 4, "conv", "token"))
    three, one = (from_timm(folder, in_chans=channels) for channels in (3, 1))
    weights = [model.patch_embed.backbone.convs[0].weight for model in (three, one)]
    assert torch.allclose(weights[0].sum(1, keepdim=True), weights[1])
    assert from_timm(folder, img_size=64)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_what_relative_positions_cannot_do_is_said_in_a_line(tmp_path):
    model = from_timm(write_folder(tmp_path / "s", RELATIVE))
    with pytest.raises(ValueError, match="without masks; got attn_mask or is_causal"):
        model.forward_intermediates(images_of(RELATIVE), is_causal=True)
    model.set_input_size(64)
    with pytest.raises(ValueError, match=r"relative positions are of 17 tokens.*got 65"):
        model(torch.zeros(1, 3, 64, 64))
    assert from_timm(tmp_path / "s", img_size=64)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_list_is_as_long_as_the_model_is_deep():
    with pytest.raises(ValueError, match="num_heads is one number, or a list of one for each of 2 blocks; got 3"):
        timm_vit.build(**SMALL | {"num_heads": [2, 2, 2]})
