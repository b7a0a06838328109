"""Whom a student has to beat."""

import pytest

from tvt_ray.errors import UsageError
from tvt_ray.verbs.compare import BASELINES, Contest, check_names, choose_contenders, first_by, place_of


@pytest.fixture
def contest(run_folder):
    config, rows = run_folder.config(), run_folder.rows().read()
    first = run_folder.ranking(config.score, rows).top(1)[0].row
    return Contest(config, run_folder, rows, first, num_classes=2, guided=True)


def replaced(contest, **changes):
    return Contest(**{**vars(contest), **changes})


def params_of(contender):
    return contender.space.cost(contender.arch, 2).params


def test_the_student_comes_first_and_the_others_are_no_copies_of_it(contest):
    found, left_out = choose_contenders(contest, list(BASELINES))
    assert next(iter(found)) == "student"
    assert {"alone", "deit", "pit"} <= found.keys()
    assert found["alone"].arch_id == found["student"].arch_id == contest.row.arch_id
    assert not found["alone"].guided
    assert left_out[-1] == "the first before refine: the run was not refined"
    labels = [each.label for each in found.values()]
    assert len(set(labels)) == len(labels)


def test_without_a_teacher_to_follow_the_student_alone_is_itself(contest):
    found, left_out = choose_contenders(replaced(contest, guided=False), ["alone"])
    assert list(found) == ["student"]
    assert left_out == ("the student without the teacher: it does not follow one",)


def test_the_largest_has_most_parameters_of_the_rows_within_the_budget(contest):
    small, most = sorted({row.params: row for row in contest.rows}.values(), key=lambda row: row.params)
    from_below = replaced(contest, row=small)
    assert params_of(BASELINES["largest"](from_below)) == most.params
    assert BASELINES["largest"](replaced(contest, row=most)) == "the largest within the budget: it is the student"
    budget = contest.config.budget.model_copy(update={"max_params": most.params - 1})
    within = replaced(from_below, config=contest.config.model_copy(update={"budget": budget}))
    assert BASELINES["largest"](within) == "the largest within the budget: it is the student"


def test_the_middle_of_the_space_is_by_parameters(contest):
    in_order = sorted(contest.rows, key=lambda row: (row.params, row.arch_id))
    half = in_order[len(in_order) // 2]
    other = next(row for row in in_order if row.shape != half.shape)
    found = BASELINES["middle"](replaced(contest, row=other))
    assert (found.title, params_of(found)) == ("the middle of the space", half.params)
    assert BASELINES["middle"](replaced(contest, row=half)) == "the middle of the space: it is the student"


@pytest.mark.parametrize("name", ["deit", "pit"])
def test_designs_are_of_the_students_size(contest, name):
    found = BASELINES[name](contest)
    assert found.space.image_size == contest.config.space.image_size
    assert 0.6 < params_of(found) / contest.row.params < 1.6


def test_a_score_stands_for_whom_it_puts_first(contest):
    by_size = sorted(contest.rows, key=lambda row: row.params)
    found = first_by("params")(replaced(contest, row=by_size[0]))
    assert params_of(found) == by_size[-1].params
    assert found.title == "the first by params"
    itself = first_by("params")(replaced(contest, row=by_size[-1]))
    assert itself == "the first by params: it is the student, or one of its shape"


def test_places_tell_seeds_and_kinds_of_training_apart(contest):
    found, _ = choose_contenders(contest, ["alone", "deit"])
    seed, arch_id = contest.config.distill.seed, contest.row.arch_id
    assert place_of(found["student"], contest, seed) == f"distill/{arch_id}"
    assert place_of(found["student"], contest, seed + 1) == f"baselines/{arch_id}.seed{seed + 1}"
    assert place_of(found["alone"], contest, seed) == f"baselines/{arch_id}.alone.seed{seed}"
    assert place_of(found["deit"], contest, seed).startswith("baselines/deit_tiny.vit-e")


def test_unknown_names_are_refused():
    with pytest.raises(
        UsageError,
        match="unknown baseline 'resnet'; choices: alone, drawn, blockless, whole, largest, middle, deit",
    ):
        check_names(["deit", "resnet"])
