import math
import random

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.proxies.attention_entropy import attention_entropy
from tvt_ray.proxies.passes import blocks_of, inputs_of, outputs_of
from tvt_ray.vits import build_student


def test_attention_probabilities_are_what_attention_uses(probe):
    for relative in (False, True):
        space = SMALL_SPACES["autoformer"].model_copy(update={"relative_position": relative, "head_dim": 8})
        student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
        attention = blocks_of(student)[0].attn
        with torch.no_grad(), inputs_of([attention]) as tokens, outputs_of([attention]) as mixed:
            student(probe.images)
            weights = attention.probabilities(tokens[0])
            values = attention.qkv(tokens[0]).unflatten(-1, (3, attention.num_heads, -1))[:, :, 2].transpose(1, 2)
            expected = weights @ values
            if relative:
                expected = expected + torch.einsum("bnts,tsd->bntd", weights, attention.relative_values())
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
        assert torch.allclose(attention.proj(expected.transpose(1, 2).flatten(2)), mixed[0], atol=1e-5)


def test_attention_that_prefers_no_token_has_the_entropy_of_a_uniform_choice(probe):
    space = SMALL_SPACES["autoformer"]
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    for attention in [block.attn for block in blocks_of(student)]:
        torch.nn.init.zeros_(attention.qkv.weight)
    assert attention_entropy(student, probe) == pytest.approx(-math.log(4 * 4 + 1), rel=1e-5)
