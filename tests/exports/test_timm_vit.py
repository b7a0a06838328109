"""What tvt_vit is by itself, without a student."""

import pytest
import timm
import torch

from tests.exports.conftest import write_folder
from tests.exports.test_timm_config import RELATIVE, WIDE_VIT, from_timm, images_of
from tvt_ray.exports import timm_vit
from tvt_ray.vits.vit import ViTArch

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
