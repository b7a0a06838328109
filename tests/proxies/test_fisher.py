import pytest
import torch

from tvt_ray.proxies.fisher import _channels


def test_fisher_sums_over_positions_before_it_squares():
    generator = torch.Generator().manual_seed(0)
    maps, tokens = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 7, 3, generator=generator)
    by_hand = sum((0.5 * (maps[:, c] * 2).sum((1, 2)) ** 2).mean().item() for c in range(3))
    assert _channels(maps, torch.full_like(maps, 2)) == pytest.approx(by_hand, rel=1e-5)
    by_hand = sum((0.5 * tokens[:, :, c].sum(1) ** 2).mean().item() for c in range(3))
    assert _channels(tokens, torch.ones_like(tokens)) == pytest.approx(by_hand, rel=1e-5)
    by_hand = sum((0.5 * tokens[:, 0, c] ** 2).mean().item() for c in range(3))
    assert _channels(tokens[:, 0], torch.ones(2, 3)) == pytest.approx(by_hand, rel=1e-5)
