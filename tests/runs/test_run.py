"""A run as an object that one reads, of a folder that was made by hand."""

import dataclasses
import json
import random

import pytest
from safetensors.torch import save

import tvt_ray
from tests.runs.conftest import SPACE
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import DistilledStudent, StudentCard, save_student
from tvt_ray.refining.learned import Measurement
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run, TrainedStudent
from tvt_ray.scoring.ranking import make_ranking
from tvt_ray.scoring.scores import Calibration
from tvt_ray.storage.locations import RemotePath, write_atomically
from tvt_ray.vits import build_student

RESULTS = {"epochs": 4, "val_acc": 90.0, "test_acc": 88.5, "teacher_test_acc": 95.0}


@pytest.fixture
def run(run_folder):
    return Run(run_folder.path)


def ids(entries):
    return [each.row.arch_id for each in entries]


def keep_student(folder, seed, **results):
    """A student that was trained, as far as its folder says."""
    arch = SPACE.sample(random.Random(seed))
    student = build_student(SPACE, arch, 3, seed=0)
    card = StudentCard(SPACE, arch, ("a", "b", "c"), {**RESULTS, **results})
    save_student(folder.distill_folder / SPACE.arch_id(arch), card, save(student.state_dict()), [{"epoch": 1}])
    return SPACE.arch_id(arch)


def test_a_run_is_loaded_from_a_path_or_a_uri(run_folder, run_config, tmp_path):
    if not isinstance(run_folder.path, RemotePath):
        path = tmp_path / "bucket" / "run"
        for place in (path, str(path), path.as_uri()):
            assert Run.load(place).folder.path == path
    loaded = Run.load(run_folder.path)
    assert loaded.config == run_config
    assert loaded.summary is None
    assert repr(loaded) == f"Run({str(run_folder.path)!r})"
    assert tvt_ray.Run is Run


def test_where_there_is_no_run_it_is_said_at_once(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        Run.load(tmp_path)
    write_atomically(tmp_path / "config.yaml", b"seed: 0\n")
    with pytest.raises(UsageError, match="written by another version"):
        Run.load(tmp_path)


def test_rows_are_a_table_with_a_line_for_each_architecture(run, rows):
    table = run.rows
    assert list(table.arch_id) == [row.arch_id for row in rows]
    assert list(table.status) == ["ok"] * 12 + ["failed"]
    assert list(table.columns) == [
        *("arch_id", "space", "arch", "shape", "params", "flops", "depth", "status", "error", "seed", "seconds"),
        *("searcher", "device", "attention_similarity", "l2_norm", "log_norm", "rank_sum"),
    ]
    assert table.rank_sum[:12].tolist() == [row.readings["rank_sum"] for row in rows[:12]]
    assert table.rank_sum.isna().tolist() == [False] * 12 + [True]
    assert json.loads(table.arch[0]) == rows[0].arch


def test_rows_that_arrive_are_seen_at_the_next_look(run, run_folder, rows):
    assert len(run.rows) == 13
    run_folder.rows().append([dataclasses.replace(rows[0], arch_id="another")])
    assert len(run.rows) == 14


def test_reading_a_run_changes_nothing_in_its_folder(run, run_folder, tmp_path):
    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = contents()
    assert before
    for read in (run.rows, run.measurements, run.students, run.config, run.ranking("tvt")):
        assert read is not None
    assert contents() == before


def test_the_ranking_is_by_the_runs_own_score_or_by_any_other(run, rows):
    calibration = Calibration.from_rows(rows[:8])
    assert run.ranking() == run.ranking("capacity") == make_ranking(rows, "capacity", calibration)
    for by in ("tvt", "params", "flops", "depth", "l2_norm"):
        assert run.ranking(by) == run.ranking(by=by) == make_ranking(rows, by, calibration)
    assert ids(run.ranking("params").entries)[0] == max(rows[:12], key=lambda row: (row.params, -row.flops)).arch_id
    assert len(run.ranking().entries) == 12  # the failed one has no score


def test_a_ranking_may_be_cut_to_a_budget_and_to_the_best(run, rows):
    limit = sorted(row.params for row in rows[:12])[5]
    inside = run.ranking("tvt", max_params=limit)
    assert {each.row.params <= limit for each in inside.entries} == {True}
    assert ids(inside.entries) == [i for i in ids(run.ranking("tvt").entries) if i in ids(inside.entries)]
    assert run.ranking("tvt", k=2, max_params=limit).top(9) == inside.top(2)
    flops = min(row.flops for row in rows[:12])
    assert {each.row.flops for each in run.ranking(max_flops=flops).entries} == {flops}
    assert run.ranking(max_params=1).entries == ()
    assert run.ranking(k=0).entries == ()


def test_a_ranking_by_an_unknown_score_or_by_what_was_not_read_is_one_line(run):
    with pytest.raises(UsageError, match=r"^unknown score 'accuracy'; choices: capacity, tvt, params, .*$"):
        run.ranking("accuracy")
    with pytest.raises(UsageError, match=r"^score 'synflow' is made of 'synflow', which this run did not read; .*$"):
        run.ranking("synflow")


def test_a_ranking_without_its_calibration_is_one_line(run, run_folder):
    write_atomically(run_folder.calibration_file, b"")
    with pytest.raises(UsageError, match=r"calibration\.json is damaged"):
        run.ranking()
    run_folder.calibration_file.unlink()
    with pytest.raises(UsageError, match=r"calibration\.json is missing"):
        run.ranking()


def test_measurements_are_a_table(run, run_folder, rows):
    assert list(run.measurements.columns) == ["arch_id", "epochs", "seed", "val_acc", "seconds", "recipe"]
    assert len(run.measurements) == 0
    first = Measurement(rows[0].arch_id, 3, 0, 61.5, 2.0, "abc")
    run_folder.measurements().append([first, dataclasses.replace(first, val_acc=1.0)])
    run_folder.measurements().append([dataclasses.replace(first, epochs=5, val_acc=70.0)])
    assert run.measurements[["epochs", "val_acc"]].to_numpy().tolist() == [[3, 61.5], [5, 70.0]]


def test_students_are_those_that_are_finished_the_best_on_validation_first(run, run_folder):
    assert run.students == []
    second, first, third = (
        keep_student(run_folder, seed, val_acc=val_acc) for seed, val_acc in ((0, 80.0), (1, 90.0), (2, 70.0))
    )
    write_atomically(run_folder.distill_folder / "in-training" / "metrics.jsonl", b"{}")
    write_atomically(run_folder.distill_folder / "a-file", b"")
    students = run.students
    assert [student.arch_id for student in students] == [first, second, third]
    best = students[0]
    cost = SPACE.cost(SPACE.sample(random.Random(1)), 3)
    path = str(run_folder.distill_folder / first)
    assert best == TrainedStudent(first, cost.params, 4, 90.0, 88.5, 95.0, path)


def test_a_student_of_a_run_is_ready_to_predict(run_config, tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim(run_config)
    keep_student(folder, 0)
    student = Run.load(tmp_path).students[0].load()
    assert isinstance(student, DistilledStudent)
    assert student.class_names == ("a", "b", "c")


def test_a_student_that_says_no_result_is_one_line(run_config, tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim(run_config)
    arch_id = keep_student(folder, 0)
    card = folder.distill_folder / arch_id / "arch.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "results": {}}))
    with pytest.raises(UsageError, match=arch_id):
        _ = Run.load(tmp_path).students
