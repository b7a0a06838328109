"""Sizes that no machine has memory for are refused where they are written down."""

import pytest

from tvt_ray.errors import UsageError
from tvt_ray.runs.config import RunConfig


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": {"image_size": 32_000_000}}, r"space.*image_size: .*less than or equal to 4096"),
        ({"teacher": {"image_size": 10**8}}, "teacher.image_size: .*less than or equal to 4096"),
        ({"space": {"embed_dim": [10**10]}}, "choices are at most 65,536; got 10,000,000,000"),
        ({"space": {"depth": [10**9]}}, "a network has at most 1,000 blocks; got 1,000,000,000"),
        ({"space": {"name": "vit", "depth": [2, 1001]}}, "at most 1,000 blocks; got 1,001"),
        ({"space": {"name": "pit", "depth": [[1, 1, 10**9]]}}, "at most 1,000 blocks; got 1,000,000,002"),
    ],
)
def test_a_size_beyond_every_machine_is_one_line(settings, said):
    with pytest.raises(UsageError, match=said) as refused:
        RunConfig().with_(settings)
    assert "\n" not in str(refused.value)
