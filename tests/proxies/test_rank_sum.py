import random

import torch

from tvt_ray.proxies.rank_sum import rank_sum
from tvt_ray.vits import build_student


def test_rank_sum_counts_the_ranks_of_the_matrices_as_drawn(space, probe):
    student = build_student(space, space.sample(random.Random(0)), 10, seed=0)
    state = student.state_dict()
    blocks = [
        v for key, v in state.items() if key.endswith("weight") and (".attn." in key or ".fc1" in key or ".fc2" in key)
    ]
    assert rank_sum(student, probe) == sum(int(torch.linalg.matrix_rank(weight)) ** 2 for weight in blocks)
