"""Indices, by hand."""

import pytest
import torch

from tvt_ray.vits.even import even, head_channels, stage_channels, take


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [
        (6, 3, [0, 2, 4]),
        (5, 3, [0, 2, 4]),
        (4, 3, [0, 2, 3]),  # 1.5 is rounded to the even number, as torch.round does
        (12, 8, [0, 2, 3, 5, 6, 8, 9, 11]),
        (7, 1, [0]),
        (4, 4, [0, 1, 2, 3]),
    ],
)
def test_indices_are_evenly_spaced(count, wanted, chosen):
    assert even(count, wanted) == chosen


def test_they_are_those_of_the_papers_code():
    """Which has `arange(s) * (t // s)` where s divides t, else `round(linspace(0, t - 1, s))`.

    What lies just between two indices is rounded either way there, as float32 happens to have it.
    """
    for count in range(1, 65):
        for wanted in range(1, count + 1):
            steps = torch.arange(wanted) * (count // wanted)
            spaced = torch.linspace(0, count - 1, wanted)
            theirs = steps if count % wanted == 0 else spaced.round().long()
            between = (spaced - spaced.floor() - 0.5).abs() < 1e-4
            assert torch.equal(torch.tensor(even(count, wanted))[~between], theirs[~between])


def test_heads_are_chosen_and_then_channels_in_each():
    # Three heads of 4 channels to two of 2: heads 0 and 2, channels 0 and 2 of each.
    assert head_channels(12, 3, 4, 2) == ([0, 2, 8, 10], [0, 2])


@pytest.mark.parametrize(("wanted", "heads"), [(4, 4), (6, 1)])
def test_where_the_student_has_more_or_wider_heads_channels_are_chosen_without_them(wanted, heads):
    assert head_channels(8, 2, wanted, heads) == (even(8, wanted), None)


def test_a_stage_takes_what_a_pool_makes_of_the_channels_before_it():
    # Channels 0 and 2 of four; the pool makes 2c and 2c + 1 of channel c.
    assert stage_channels([4, 8], [2, 4]) == [[0, 2], [0, 1, 4, 5]]
    # Of three that it makes of each, the first and the last.
    assert stage_channels([4, 12], [2, 4]) == [[0, 2], [0, 2, 6, 8]]


def test_a_stage_that_grows_more_than_the_sources_takes_evenly_chosen_channels():
    assert stage_channels([4, 4], [1, 2]) == [[0], [0, 2]]


def test_entries_are_taken_along_each_axis_and_all_where_none_are_named():
    value = torch.arange(12).view(3, 4)
    assert take(value, [[0, 2], [1]]).tolist() == [[1], [9]]
    assert take(value, [None, [3]]).tolist() == [[3], [7], [11]]
