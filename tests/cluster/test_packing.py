"""What machines hold, as tables: clusters, what a process takes, how many fit."""

import pytest

from tvt_ray.cluster import slots
from tvt_ray.cluster.packing import Node, fitting, most_cores
from tvt_ray.cluster.settings import ClusterSettings
from tvt_ray.errors import UsageError

LAPTOP = [Node(8)]
EIGHT = [Node(96, 8)]
FOURS = [Node(48, 4), Node(48, 4)]
MIXED = [Node(16, 1), Node(16, 1), Node(64), Node(64)]  # two machines with GPUs beside two without


@pytest.mark.parametrize(
    ("cluster", "cpus", "gpus", "count"),
    [
        (LAPTOP, 1, 0, 8),
        (LAPTOP, 3, 0, 2),
        (EIGHT, 1, 0.2, 40),  # 8 // 0.2 is 39
        (EIGHT, 1, 0.25, 32),
        (EIGHT, 1, 0.1, 80),
        (EIGHT, 1, 0.4, 16),  # two to a GPU
        (EIGHT, 1, 0.6, 8),
        (EIGHT, 1, 1, 8),
        (EIGHT, 16, 1, 6),  # cores run out
        (EIGHT, 1, 3, 2),
        (FOURS, 1, 8, 0),
        (FOURS, 1, 4, 2),
        (FOURS, 1, 3, 2),
        (MIXED, 1, 0.25, 8),  # not by the cores of those without
        (MIXED, 1, 0, 160),
        (MIXED, 20, 1, 0),
        ([Node(2, 8)], 1, 0.25, 2),
        ([], 1, 0, 0),
    ],
)
def test_processes_are_placed_node_by_node(cluster, cpus, gpus, count):
    assert fitting(cluster, cpus, gpus) == count
    assert place_each(cluster, cpus, gpus) == count


def place_each(cluster, cpus, gpus):
    """By putting one process after the other on the first GPU, or GPUs, that are free, in thousandths."""
    free = [(node.cpus, [1000] * int(node.gpus)) for node in cluster]
    count = 0
    while True:
        for place, (cores, cards) in enumerate(free):
            if cores < cpus:
                continue
            if gpus <= 1:
                card = next((i for i, left in enumerate(cards) if left >= round(1000 * gpus)), None)
                if gpus and card is None:
                    continue
                cards = [left - round(1000 * gpus) * (i == card) for i, left in enumerate(cards)]
            else:
                whole = [i for i, left in enumerate(cards) if left == 1000][: int(gpus)]
                if len(whole) < gpus:
                    continue
                cards = [0 if i in whole else left for i, left in enumerate(cards)]
            free[place] = (cores - cpus, cards)
            count += 1
            break
        else:
            return count


@pytest.mark.parametrize(
    ("cluster", "gpus", "count", "cores"),
    [(LAPTOP, 0, 1, 8), (LAPTOP, 0, 3, 2), (MIXED, 1, 2, 16), (MIXED, 0, 3, 32), (FOURS, 1, 8, 12), (FOURS, 8, 1, 0)],
)
def test_each_of_some_processes_has_as_many_cores_as_all_can_have(cluster, gpus, count, cores):
    assert most_cores(cluster, gpus, count) == cores


@pytest.mark.parametrize(
    ("resources", "node"),
    [
        ({"CPU": 8.0}, Node(8, 0.0)),
        ({"CPU": 96.0, "GPU": 8.0, "accelerator_type:H200": 1.0}, Node(96, 8.0)),
        ({"CPU": 16.0, "GPU": 2.0, "accelerator_type:AMD-Instinct-MI300X-OAM": 1.0}, Node(16, 2.0)),
        ({"CPU": 16.0, "GPU": 1.0}, Node(16, 1.0)),  # a card that Ray has no name for
        ({"CPU": 10.0, "GPU": 1.0, "accelerator_type:M1-Pro": 1.0}, Node(10, 0.0)),
        ({"CPU": 10.0, "GPU": 1.0, "accelerator_type:M4": 1.0}, Node(10, 0.0)),
        ({"CPU": 4.0, "GPU": 1.0, "accelerator_type:M60": 1.0}, Node(4, 1.0)),  # NVIDIA's
    ],
)
def test_apples_gpu_is_not_computed_on_whatever_ray_counts(monkeypatch, resources, node):
    gone = {"Alive": False, "Resources": {}}
    monkeypatch.setattr(slots.ray, "nodes", lambda: [{"Alive": True, "Resources": resources}, gone])
    assert slots.nodes() == [node]
    assert slots.num_gpus() == int(node.gpus)


@pytest.fixture
def on(monkeypatch):
    def on(cluster, **settings):
        monkeypatch.setattr(slots, "nodes", lambda: cluster)
        return ClusterSettings(**settings)

    return on


def test_trainings_are_allotted_what_one_node_has(on):
    """Of four trainings on two machines with a GPU each, two run at a time, whatever cores others have."""
    assert slots.allot(on(MIXED), 4) == slots.Allotment(1, 16, 1.0, 2, None, ClusterSettings().max_failures)
    assert slots.allot(on(LAPTOP), 3).cpus == 2
    two = slots.allot(on(FOURS, training_workers=2), 3)
    assert (two.workers, two.cpus, two.gpus, two.jobs) == (2, 16, 1.0, 3)
    assert slots.allot_cohorts(on(MIXED), 10).jobs == 4
    assert slots.allot_cohorts(on(LAPTOP), 2) == slots.Allotment(1, 4, 0.0, 2, None, ClusterSettings().max_failures)


@pytest.mark.parametrize(
    ("cluster", "settings", "said"),
    [
        (EIGHT, {"training_workers": 2, "gpus_per_training_worker": 0.5}, "puts 2 workers of a training on one GPU"),
        (FOURS, {"gpus_per_training_worker": 8}, "8 GPUs on 2 nodes, and a worker takes 1 and 8 of one node"),
        (LAPTOP, {"training_workers": 9}, "cluster.training_workers 9 needs more than the cluster has: 8 CPUs, 0 GPUs"),
        (MIXED, {"cpus_per_training_worker": 20}, "a worker takes 20 and 1 of one node"),
    ],
)
def test_what_no_cluster_holds_is_refused_in_a_line(on, cluster, settings, said):
    with pytest.raises(UsageError) as error:
        slots.allot(on(cluster, **settings), 1)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_trial_of_more_gpus_than_any_node_has_is_refused(on):
    on(FOURS)
    assert slots.find_slots(4).count == 2
    with pytest.raises(UsageError, match=r"cluster.gpus_per_trial 8: no node .* has so many GPUs and a core; .* has 4"):
        slots.find_slots(8)
    on(LAPTOP)
    assert slots.find_slots(8) == slots.Slots(8, 0)


@pytest.mark.parametrize(
    ("peak_mib", "free_gib", "count"),
    [(400, 16, 13), (400, 139, 16), (3000, 16, 3), (400, 1.5, 1), (20_000, 16, 1)],
)
def test_as_many_actors_share_a_gpu_as_what_others_left_of_it_holds(peak_mib, free_gib, count):
    """Each with a context of 600 MiB, in 85 % of it; one at least, which says for itself that it does not fit."""
    assert slots.actors_to_a_gpu(peak_mib * 2**20, int(free_gib * 2**30)) == count
