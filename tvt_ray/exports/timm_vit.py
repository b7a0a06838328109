"""Registers `tvt_vit` with timm: a VisionTransformer whose blocks may differ. Import it before `timm.create_model`.

What timm's own constructor offers is kept: drop rates, `dynamic_img_size`, `reset_classifier`, `features_only` and all
else. Added are heads and MLP ratios by block, the convolutional stem, and AutoFormer's attention of a fixed head width
and of relative positions. A student that is a stock VisionTransformer, or a PiT, does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from tvt_ray.vision_compat import ensure_torchvision
from tvt_ray.vits.draws import INIT_STD
from tvt_ray.vits.layers import Attention
from tvt_ray.vits.pieces import IN_CHANNELS
from tvt_ray.vits.stems import NormedConvs, StageStem, Stem, stem_of
from tvt_ray.vits.student import OWN_VIT
from tvt_ray.vits.trunks import Trunk

ensure_torchvision()

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # noqa: E402
from timm.layers import HybridEmbed  # noqa: E402
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn  # noqa: E402

default_cfgs = generate_default_cfgs(  # timm looks for it in the module of a registered model
    {
        f"{OWN_VIT}.untrained": {
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "num_classes": 1000,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)


class SpaceAttention(Attention):
    """The students' attention, as timm's blocks call it: without masks."""

    def __init__(self, dim: int, num_heads: int, attention_dim: int, relative_map: int | None = None) -> None:
        super().__init__(dim, num_heads, attention_dim, relative_map)
        self.num_tokens = relative_map**2 + 1 if relative_map else None
        for parameter in self.parameters():  # timm initialises its Linears anew, and knows nothing of the tables
            nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, T, C) -> (B, T, C). Raises ValueError for masks, and for images of another size than the tables'."""
        if attn_mask is not None or is_causal:
            raise ValueError("a fixed head width and relative positions go without masks; got attn_mask or is_causal")
        if self.num_tokens not in (None, tokens.shape[1]):
            raise ValueError(
                f"relative positions are of {self.num_tokens} tokens, those of its img_size; got {tokens.shape[1]}"
            )
        return super().forward(tokens)


@register_model  # type: ignore[untyped-decorator]
def tvt_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """As timm calls it; `build` says what it takes beside a VisionTransformer's own arguments."""
    out_indices = kwargs.pop("out_indices", 3)
    return build_model_with_cfg(
        build,
        OWN_VIT,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )


def build(
    *,
    num_heads: int | Sequence[int] = 12,
    mlp_ratio: float | Sequence[float] = 4.0,
    depth: int = 12,
    head_dim: int | None = None,
    relative_position: bool = False,
    stem: str = "patch",
    backbone: str | None = None,
    img_size: int | tuple[int, int] = 224,
    patch_size: int = 16,
    in_chans: int = 3,
    **kwargs: Any,
) -> VisionTransformer:
    """The model, initialised as timm's. `num_heads`, `mlp_ratio`: one for all blocks, or a list of one for each.

    `head_dim`: channels of a head (None: embed_dim / heads). `relative_position`: learned tables on keys and values, of
    square images of `img_size`. `stem`: patch, conv, or stageK, the first K stages of the ConvNet `backbone`. Raises
    ValueError where lists are not `depth` long.
    """
    heads, ratios = by_block("num_heads", num_heads, depth), by_block("mlp_ratio", mlp_ratio, depth)
    size = img_size if isinstance(img_size, int) else img_size[0]
    relative_map = size // patch_size if relative_position else None
    if stem != "patch":
        kwargs["embed_layer"] = _embedding(stem_of(stem, backbone), kwargs.get("embed_dim", 768), patch_size, in_chans)
    return VisionTransformer(
        img_size=img_size,
        patch_size=patch_size,
        in_chans=in_chans,
        depth=depth,
        block_fn=_blocks(iter(zip(heads, ratios, strict=True)), head_dim, relative_map),
        **kwargs,
    )


def by_block(name: str, value: Any, depth: int) -> list[Any]:
    """One value for each block. Raises ValueError that names the argument."""
    values = list(value) if isinstance(value, Sequence) else [value] * depth
    if len(values) != depth:
        raise ValueError(f"{name} is one number, or a list of one for each of {depth} blocks; got {len(values)}")
    return values


def _blocks(
    shapes: Iterator[tuple[int, float]], head_dim: int | None, relative_map: int | None
) -> Callable[..., nn.Module]:
    """What VisionTransformer calls for each block in turn, with the same arguments but for drop path."""
    special = head_dim is not None or relative_map is not None

    def block(dim: int, **kwargs: Any) -> nn.Module:
        heads, ratio = next(shapes)
        made: nn.Module = Block(dim, **{**kwargs, "num_heads": 1 if special else heads, "mlp_ratio": ratio})
        if special:
            made.attn = SpaceAttention(dim, heads, dim if head_dim is None else head_dim * heads, relative_map)
        return made

    return block


def _embedding(stem: type[Stem], embed_dim: int, patch_size: int, in_chans: int) -> Callable[..., nn.Module]:
    """A stem of the ViT space that is more than patches; the convolutional one of any number of input channels."""
    *first, last = stem.convs(embed_dim, patch_size)
    if issubclass(stem, StageStem):
        if in_chans != IN_CHANNELS:
            raise ValueError(f"a stem of stages is for images of {IN_CHANNELS} channels; got in_chans {in_chans}")
        trunk = Trunk(stem.network, stem.num_stages)
        _draw(trunk)
        return lambda **kwargs: HybridEmbed(trunk, **{**kwargs, "patch_size": last.kernel})

    def embed(**kwargs: Any) -> nn.Module:
        backbone = NormedConvs([first[0]._replace(inputs=in_chans), *first[1:]])
        for conv in backbone.convs:
            conv.reset_parameters()  # type: ignore[operator]
        return HybridEmbed(backbone, **{**kwargs, "patch_size": last.kernel})  # type: ignore[no-any-return]

    return embed


def _draw(trunk: Trunk) -> None:
    """Gives a trunk that was made without numbers those that its modules begin with."""
    for module in trunk.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        else:
            for parameter in module.parameters(recurse=False):
                nn.init.ones_(parameter)
