"""What tvt refine prints. That it refines is in tests/cluster/test_cohorts.py."""

import pytest

from tvt_ray.cli.refine import print_refined
from tvt_ray.verbs.refine import Refined, RefineSummary, Smallest


@pytest.fixture
def make():
    def make(predicted, interval, **changed):
        best = (
            Refined("vit-e64", predicted, interval, 41.5, 5, 280_000),
            Refined("vit-e96", predicted, interval, None, 0, 300_000),
        )
        found = {"lessons": (), "sure_of_first": None, "more_would_change": None, "smallest": None, **changed}
        return RefineSummary(
            run_dir="/runs/photos one", num_students=5, epochs_spent=35, rungs=(5, 10), epochs=15, best=best, **found
        )

    return make


def test_where_too_few_were_trained_it_says_that_nothing_was_learned(capsys, make):
    print_refined(make(None, None))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "learned nothing: it takes 8 students, so the order is that of the score that needs none",
        "train   python distill.py --run-dir '/runs/photos one' --top-k 2",
    ]


def test_what_was_learned_is_in_words_and_chances(capsys, make):
    print_refined(
        make(42.0, (40.0, 44.0), lessons=("this dataset rewards width",), sure_of_first=0.62, more_would_change=0.3)
    )
    out = capsys.readouterr().out
    assert out.splitlines()[-5:] == [
        "learned this dataset rewards width",
        "sure    the first ends above the second with a chance of 62 %",
        "more    another of these is better by half a point or more with a chance of 30 %",
        "length  all this holds after 10 of 15 epochs; longer trainings may put other students first",
        "train   python distill.py --run-dir '/runs/photos one' --top-k 2",
    ]
    assert "40.0 to 44.0" in out
    assert "41.5 after 5" in out
    for latency, cost in ((None, "280k parameters"), (1.25, "280k parameters, 1.25 ms")):
        small = Smallest("vit-e64", 280_000, latency, 41.4, 1.0, 0.84, "is as good")
        print_refined(make(42.0, (40.0, 44.0), smallest=small))
        line = f"small   vit-e64 ({cost}) is as good; distill.py --within 1 trains it"
        assert line in capsys.readouterr().out
