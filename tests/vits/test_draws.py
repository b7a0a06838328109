import hashlib

import torch

from tvt_ray.vits.draws import INIT_STD, Draws, NumberPool, draws_of


def pool(key="a"):
    return NumberPool(key, lambda x, g: x.normal_(0, INIT_STD, generator=g), torch.device("cpu"))


def test_a_number_does_not_depend_on_how_far_the_pool_has_grown():
    grown, fresh = pool(), pool()
    early = grown.slice(5, 100).clone()
    late = grown.slice(2_500_000, 1000)
    assert torch.equal(fresh.slice(2_500_000, 1000), late)
    assert torch.equal(grown.slice(5, 100), early)
    assert torch.equal(fresh.slice(5, 100), early)
    assert not torch.equal(pool("b").slice(5, 100), early)


def test_blocks_of_a_pool_differ():
    """A block seeded like the one before would repeat its numbers within a student."""
    numbers = pool().slice(0, 3 * 2**20)
    digests = {hashlib.sha256(block.numpy().tobytes()).digest() for block in numbers.split(2**20)}
    assert len(digests) == 3


def test_draws_follow_their_distributions():
    draws = draws_of(0, "some architecture")
    normal, uniform = draws.normal((300, 1000)), draws.uniform((300, 1000), 0.5)
    assert abs(normal.std().item() / INIT_STD - 1) < 0.01
    assert abs(normal.mean().item()) < INIT_STD / 100
    assert uniform.abs().max() <= 0.5
    assert abs(uniform.std().item() / (0.5 / 3**0.5) - 1) < 0.01


def test_tensors_of_a_student_share_no_numbers_and_start_at_a_cache_line():
    draws = Draws(pool("n"), pool("u"), 32)
    sizes = [7, 100, 16, 1]
    starts = [draws.normal((size,)).storage_offset() for size in sizes]
    assert starts[0] == 32
    assert all(start % 16 == 0 for start in starts)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


def test_seed_architecture_and_draw_each_make_a_difference():
    first = draws_of(0, "a").normal((50,))
    assert torch.equal(first, draws_of(0, "a").normal((50,)))
    for other in (draws_of(1, "a"), draws_of(0, "b"), draws_of(0, "a", draw=1)):
        assert not torch.equal(first, other.normal((50,)))
