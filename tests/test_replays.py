"""benchmarks/replays.py: ways to choose see what they pay for, and are judged by the end."""

import math

import numpy as np
import pytest

from benchmarks import replays
from benchmarks.ground_truth import sample_archs
from tvt_ray.proxies import PROXIES
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.config import load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.scoring.reader import Reader, ReadingTask
from tvt_ray.scoring.scores import Calibration
from tvt_ray.vits.autoformer import AutoFormerSpace

pytestmark = pytest.mark.slow  # every proxy, and many rounds of refine

SPACE = AutoFormerSpace(
    image_size=32, patch_size=8, embed_dim=(12, 18, 24, 30), depth=(1, 2, 3), num_heads=(2, 3), mlp_ratio=(1.5, 2.0)
)
NUM_STUDENTS, EPOCHS = 24, 12


@pytest.fixture(scope="module")
def folder(probe, tmp_path_factory):
    """Students of as many shapes, read by every proxy."""
    settings = {"space": SPACE.model_dump(mode="json"), "score": {"proxies": list(PROXIES)}}
    config = load_config(None, [settings, {"distill": {"epochs": EPOCHS}}])
    archs = {SPACE.shape(arch): arch for arch in sample_archs(SPACE, 8 * NUM_STUDENTS, seed=0)}
    small = Reader(ReadingTask(SPACE, 10, tuple(PROXIES), 0, probe))
    rows = small.read_all(list(archs.values())[:NUM_STUDENTS])
    made = RunFolder(tmp_path_factory.mktemp("replays") / "run")
    made.make()
    made.claim(config)
    made.rows().append(rows)
    Calibration.from_rows(rows).save(made.calibration_file)
    return made, config


@pytest.fixture(scope="module")
def truth(folder):
    """Students that end at 30 to 53 %, and learn at one pace: validation at every epoch tells their order.

    A second seed of four of them ends 2 points higher.
    """
    run, config = folder
    prior = run.ranking(config.score)
    assert len(prior.scored) == NUM_STUDENTS
    ends = np.random.default_rng(0).permutation(NUM_STUDENTS) + 30.0
    measurements = [
        Measurement(each.row.arch_id, epoch, seed, (end + 2 * seed) * (1 - math.exp(-epoch / 4)), 1.0, "r")
        for number, (each, end) in enumerate(zip(prior.scored, ends, strict=True))
        for seed in range(2 if number < 4 else 1)
        for epoch in range(1, EPOCHS + 1)
    ]
    return replays.Truth(run, config, prior, tuple(measurements), ends)


def test_what_was_recorded_is_told(truth):
    assert truth.curves.shape == (NUM_STUDENTS, EPOCHS)
    assert truth.curves[3, 5] == pytest.approx(truth.test[3] * (1 - math.exp(-1.5)))
    assert truth.repeated == [0, 1, 2, 3]
    assert truth.noise == pytest.approx(math.sqrt(2) * (1 - math.exp(-EPOCHS / 4)))  # of two that differ by 2 points
    best = int(truth.test.argmax())
    assert (truth.regret(best), truth.regret(int(truth.test.argmin()))) == (0, NUM_STUDENTS - 1)


@pytest.mark.parametrize("share", [0.2, 0.4])
@pytest.mark.parametrize("replay", [replays.replay_random, replays.replay_halving, replays.replay_refine])
def test_a_way_to_choose_pays_no_more_than_its_budget(truth, replay, share):
    for seed in range(3):
        budget = share * truth.curves.size
        chosen = replay(truth, budget, np.random.default_rng(seed))
        assert 0 < chosen.epochs <= budget
        assert 0 <= chosen.index < NUM_STUDENTS


def test_who_pays_for_all_finds_the_best_where_there_is_no_noise(truth):
    for replay in (replays.replay_random, replays.replay_halving):
        chosen = replay(truth, truth.curves.size, np.random.default_rng(0))
        assert truth.regret(chosen.index) == 0


def test_of_those_that_random_choice_trains_it_takes_the_best(truth):
    count = 5
    chosen = replays.replay_random(truth, count * EPOCHS, np.random.default_rng(3))
    picked = np.random.default_rng(3).permutation(NUM_STUDENTS)[:count]
    assert truth.test[chosen.index] == truth.test[picked].max()
    assert chosen.epochs == count * EPOCHS


def test_halving_trains_half_of_its_students_on_from_rung_to_rung(truth):
    """It sees more students than random choice does for the same epochs, and here it is never misled."""
    budget = 6 * EPOCHS
    random, halving = (
        np.mean([truth.regret(replay(truth, budget, np.random.default_rng(seed)).index) for seed in range(20)])
        for replay in (replays.replay_random, replays.replay_halving)
    )
    assert halving < random


def test_every_way_is_judged(truth):
    result = replays.judge(truth, 2)
    assert [result[name] for name in ("students", "best", "median", "worst")] == [NUM_STUDENTS, 53, 41.5, 30]
    ways = result["ways"]
    assert {*PROXIES, "capacity", "tvt", "params", "epoch 5", "refine 20%", "refine, one round 40%"} <= ways.keys()
    assert ways["epoch 5"] == {"tau": pytest.approx(1), "regret": 0, "epochs": 5 / EPOCHS}
    assert ways["params"]["epochs"] == 0
    for name, way in ways.items():
        assert 0 <= way["regret"] <= NUM_STUDENTS - 1
        if name.endswith("%"):
            assert way["epochs"] <= float(name.split()[-1].rstrip("%")) / 100
