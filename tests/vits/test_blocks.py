import random

import pytest
import torch
from torch import nn

from tests.vits.inputs import images
from tvt_ray.vits import build_student
from tvt_ray.vits.blocks import tokens_to_map


def test_drop_path_acts_in_training_alone(space):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    with torch.no_grad():
        calm = student(images(space, 8))
        assert torch.equal(student(images(space, 8)), calm)
        student.train()
        torch.manual_seed(0)
        noisy = [student(images(space, 64)) for _ in range(2)]
    assert not torch.equal(*noisy)


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_fused_blocks_give_what_plain_ones_give(space, precision, tolerance):
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    last = student.num_blocks - 1
    with torch.inference_mode():
        plain = student.feature_maps(images(space), (0, last))
        fused = student.feature_maps(images(space).to(precision), (0, last), fused=True)
    for block, expected in plain.items():
        assert fused[block].dtype == precision
        assert (fused[block].float() - expected).abs().max() < tolerance * expected.abs().max()


def test_a_map_is_the_tokens_row_by_row_without_the_class_token():
    tokens = torch.arange(5.0)[None, :, None].expand(2, 5, 3)
    assert tokens_to_map(tokens, 2)[1, 2].tolist() == [[1, 2], [3, 4]]


def test_layers_are_of_pytorchs_own_classes(space):
    """Dynamic quantisation looks for the class itself, and converts no subclass."""
    student = build_student(space, space.sample(random.Random(0)), 5, seed=0)
    assert {type(m) for m in student.modules() if isinstance(m, nn.Linear | nn.Conv2d)} == {nn.Linear, nn.Conv2d}
