import itertools

import pytest

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import TIMES, true_ms
from tvt_ray.latency.design import NUM_CLASSES, parts_of, whole_archs
from tvt_ray.latency.device import this_device
from tvt_ray.latency.measure import NUM_ROUNDS, Wish, in_rounds, make_batch, measure_profile
from tvt_ray.latency.predictor import Predictor
from tvt_ray.vits.vit import ViTSpace

TINY = ViTSpace(image_size=16, embed_dim=(24,), depth=(1, 2), head_dim=(12,), mlp_ratio=(1,), patch_size=(8,))


def test_each_is_measured_in_every_round_and_its_least_time_counts():
    times = [iter([3.0, 1.0, 2.0]), iter([5.0, 7.0, 6.0])]
    counted = itertools.count()
    assert in_rounds([lambda t=t: next(t) for t in times], lambda: next(counted)) == [1.0, 5.0]
    assert next(counted) == 2 * NUM_ROUNDS


def test_students_that_settle_the_sum_do_not_judge_it():
    """Every other student takes twice what its parts say: all that judge are wrong by as much."""
    space = SMALL_SPACES["vit"]
    archs = whole_archs(space, 10)
    sums = [true_ms(space, arch) for arch in archs]
    times = {part: TIMES[part.kind] for part in parts_of(space)}
    batch = make_batch(space, 1, times, archs, [ms * (1 + i % 2) for i, ms in enumerate(sums)])
    assert batch.error.num == 5
    assert (batch.error.median, batch.error.worst) == (pytest.approx(0.5), pytest.approx(0.5))
    predict = Predictor.of(batch, space, NUM_CLASSES)
    assert [predict(arch) for arch in archs] == pytest.approx(sums)
    assert batch.students_ms == (min(sums), 2 * max(sums[1::2]))


def test_a_single_architecture_settles_and_judges():
    space = TINY.model_copy(update={"depth": (1,), "stem": ("patch",), "pool": ("mean",)})
    archs = whole_archs(space, 4)
    batch = make_batch(space, 1, dict.fromkeys(parts_of(space), 1.0), archs, [6.0])
    assert (len(archs), batch.error.num, batch.error.worst) == (1, 1, pytest.approx(0, abs=1e-6))


@pytest.mark.slow
def test_a_space_is_measured_on_this_machine(capsys):
    profile = measure_profile(Wish(TINY, this_device("cpu"), 1, (1, 3), num_students=4))
    assert (profile.device, profile.threads, profile.space) == (this_device("cpu"), 1, TINY)
    assert [batch.batch_size for batch in profile.batches] == [1, 3]
    for batch in profile.batches:
        assert {(part.kind, part.sizes) for part in batch.parts} == {(p.kind, p.sizes) for p in parts_of(TINY)}
        assert batch.error.num == 2
        predict = Predictor.of(batch, TINY, 10)
        assert all(predict(arch) > 0 for arch in TINY.enumerate())
    assert "profiling: " in capsys.readouterr().err
