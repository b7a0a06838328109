"""Each step against PyTorch's own, in the precisions and layouts that a block uses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tvt_ray.vits import kernels

PRECISIONS = pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def close(ours, expected, tolerance):
    return (ours.float() - expected).abs().max() <= tolerance * expected.abs().max()


@PRECISIONS
@torch.inference_mode()
def test_an_mlp_is_added_to_the_tokens(precision, tolerance):
    tokens, norm, fc1, fc2 = torch.randn(3, 17, 24), nn.LayerNorm(24), nn.Linear(24, 36), nn.Linear(36, 24)
    expected = tokens + fc2(F.gelu(fc1(norm(tokens))))
    assert close(kernels.add_mlp(tokens.to(precision), norm, fc1, fc2), expected, tolerance)


@PRECISIONS
@torch.inference_mode()
def test_a_linear_is_added_to_the_residual_which_stays_as_it_is(precision, tolerance):
    tokens, residual, layer = torch.randn(3, 17, 24), torch.randn(3, 17, 16).to(precision), nn.Linear(24, 16)
    before = residual.clone()
    assert close(kernels.linear_add(tokens.to(precision), layer, residual), layer(tokens) + before.float(), tolerance)
    assert torch.equal(residual, before)


@PRECISIONS
@torch.inference_mode()
def test_attention_is_pytorchs(precision, tolerance):
    queries, keys, values = torch.randn(3, 2, 4, 17, 8)
    ours = kernels.attend(*(part.to(precision) for part in (queries, keys, values)))
    assert close(ours, F.scaled_dot_product_attention(queries, keys, values), tolerance)


@torch.inference_mode()
def test_attention_that_does_not_fit_the_cache_is_computed_in_pieces():
    """In bfloat16 on a CPU; 12 heads of 257 tokens are cut in two."""
    queries, keys, values = torch.randn(3, 4, 3, 257, 8)
    ours = kernels.attend(*(part.to(torch.bfloat16) for part in (queries, keys, values)))
    assert close(ours, F.scaled_dot_product_attention(queries, keys, values), 0.03)
