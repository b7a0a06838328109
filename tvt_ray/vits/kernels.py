"""A block's steps for inference, each in the fastest kernels that PyTorch has for it here.

On a CPU with AVX-512, oneDNN multiplies matrices and applies GELU or adds the residual while the product is still in
the cache. Its GELU takes twice as long as PyTorch's on other CPUs, and there hidden activations are made, read and
forgotten by a cacheful at a time. Elsewhere the same steps run one after the other. Which of these it is depends on the
machine alone, so that a machine gives the same numbers every time. Weights of another precision than the tokens are
converted on the way.

Shape suffixes: B = images, T = tokens, C = channels, N = heads, D = channels per head; ... = any leading axes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LOGITS_IN_CACHE = 400_000  # attention logits at a time where they are held: the softmax finds them in the cache
_HIDDEN_IN_CACHE = 2**20  # hidden activations at a time: GELU and the next product find them in the cache
_ROW_ALIGNMENT = 16  # rows: whatever their width, a block of them starts at a cache line


def _find_onednn() -> bool:
    """torch.compile's own operators for this; they are not documented API, so their absence is no error."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_HAS_ONEDNN = _find_onednn() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
HAS_BF16 = _HAS_ONEDNN and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # by this processor's instructions


def _fuses(tokens: Tensor) -> bool:
    return tokens.device.type == "cpu" and (
        (tokens.dtype == torch.float32 and _HAS_ONEDNN) or (tokens.dtype == torch.bfloat16 and HAS_BF16)
    )


def _cast(layer: nn.Linear | nn.Conv2d | nn.LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def linear(tokens: Tensor, layer: nn.Linear) -> Tensor:
    """(..., C) -> (..., C')."""
    weight, bias = _cast(layer, tokens.dtype)
    if _fuses(tokens):
        return torch.ops.mkldnn._linear_pointwise.default(tokens, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(tokens, weight, bias)


def linear_gelu(tokens: Tensor, layer: nn.Linear) -> Tensor:
    """GELU (exact) of the layer: (..., C) -> (..., C')."""
    if not _fuses(tokens):
        return torch.ops.aten.gelu_(linear(tokens, layer))  # type: ignore[no-any-return]
    weight, bias = _cast(layer, tokens.dtype)
    return torch.ops.mkldnn._linear_pointwise.default(tokens, weight, bias, "gelu", [], "none")  # type: ignore[no-any-return]


def linear_add(tokens: Tensor, layer: nn.Linear, residual: Tensor) -> Tensor:
    """The layer plus `residual` (..., C'): (..., C) -> (..., C')."""
    if not _fuses(tokens):
        return _add_product_(residual.clone(memory_format=torch.contiguous_format), tokens, layer)
    weight, bias = _cast(layer, tokens.dtype)
    return torch.ops.mkldnn._linear_pointwise.binary(tokens, residual, weight, bias, "add")  # type: ignore[no-any-return]


def _add_product_(total: Tensor, tokens: Tensor, layer: nn.Linear) -> Tensor:
    """Adds the layer's output to `total` (..., C'), contiguous, which the matrix product accumulates into."""
    weight, bias = _cast(layer, tokens.dtype)
    if bias is not None:
        total += bias
    total.view(-1, total.shape[-1]).addmm_(tokens.flatten(0, -2), weight.T)
    return total


def add_mlp(tokens: Tensor, layer_norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """`tokens` plus fc2(GELU(fc1(norm(tokens)))), which may be written over `tokens`: (B, T, C) -> (B, T, C)."""
    if _fuses(tokens):
        return linear_add(linear_gelu(norm(tokens, layer_norm), fc1), fc2, tokens)
    tokens = tokens.contiguous()  # as it mostly is; what is written to below has to be the tokens themselves
    rows = tokens.view(-1, tokens.shape[-1])
    at_once = _HIDDEN_IN_CACHE // fc1.out_features if tokens.device.type == "cpu" else len(rows)
    for block in torch.split(rows, max(1, at_once // _ROW_ALIGNMENT) * _ROW_ALIGNMENT):
        _add_product_(block, linear_gelu(norm(block, layer_norm), fc1), fc2)
    return tokens


def norm(tokens: Tensor, layer: nn.LayerNorm) -> Tensor:
    """(..., C) -> (..., C)."""
    return F.layer_norm(tokens, layer.normalized_shape, *_cast(layer, tokens.dtype), layer.eps)


def conv(images: Tensor, layer: nn.Conv2d) -> Tensor:
    """(B, C, H, W) -> (B, C', H', W')."""
    weight, bias = _cast(layer, images.dtype)
    return F.conv2d(images, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention: each (B, N, T, D) -> (B, N, T, D).

    PyTorch's own, but for bfloat16 on the CPU: there its kernel is no faster than in float32, two matrix products are.
    """
    if values.device.type != "cpu" or values.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(queries, keys, values)
    tokens, channels = values.shape[-2:]
    flat = [part.reshape(-1, tokens, channels) for part in (queries, keys, values)]
    mixed, step = torch.empty_like(flat[2]), max(1, _LOGITS_IN_CACHE // tokens**2)
    for q, k, v, out in zip(*(torch.split(part, step) for part in (*flat, mixed)), strict=True):
        logits = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha=1 / math.sqrt(channels))
        torch.bmm(torch.softmax(logits, -1, out=logits), v, out=out)
    return mixed.view(values.shape)
