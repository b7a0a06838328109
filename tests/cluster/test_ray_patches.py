"""Private parts of Ray are as they are thought to be."""

import pytest

from tvt_ray.cluster.ray_patches import FAREWELL_S, jobs_end_with_their_workers

pytestmark = pytest.mark.ray


def test_trains_jobs_are_made_with_a_short_farewell_inside_the_block_alone():
    from ray.train.v2.api import data_parallel_trainer

    original = data_parallel_trainer.PlacementGroupCleanerCallback
    with jobs_end_with_their_workers():
        (made,) = (
            each
            for each in data_parallel_trainer.DataParallelTrainer(lambda: None)._create_default_callbacks()
            if isinstance(each, original)
        )
        assert made._stop_timeout == FAREWELL_S
    assert data_parallel_trainer.PlacementGroupCleanerCallback is original
    assert original()._stop_timeout > 10  # what is kept from waiting for
