"""Distillation as real Ray Train jobs."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import tvt_ray
from tests.cluster.conftest import SMALLER, start_search, variant
from tests.cluster.prometheus import watch
from tvt_ray.cluster import training
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.run import Run
from tvt_ray.verbs.distill import distill
from tvt_ray.verbs.init import read_source

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def before_each_epoch(monkeypatch, do):
    """Workers of a training call `do` with their cohort before each epoch, and keep its state after each."""
    train_worker = training._train_worker

    def worker(config):
        from tvt_ray.training import loop

        original = loop.Loop.run_epoch

        def run_epoch(self, on_batch):
            do(self)
            return original(self, on_batch)

        loop.Loop.run_epoch = run_epoch
        loop.SECONDS_BETWEEN_STATES = 0
        return train_worker(config)

    monkeypatch.setattr(training, "_train_worker", worker)


@pytest.mark.night
def test_search_then_distil_gives_students_that_load(cluster, teacher, tmp_path, digits):
    """search.py --distill-top-k 2 as a user types it, in one Train job; accuracy after loading is the one reported."""
    folder = tmp_path / "run"
    flags = ["--num-samples", "16", "--distill-top-k", "2", "--epochs", "6"]
    flags += ["--set", "space.embed_dim=[96]", "--set", "space.depth=[3, 4]", "--set", "distill.batch_size=16"]
    flags += ["--set", "cluster.cpus_per_training_worker=4"]
    process = start_search(folder, *SMALLER, *flags, "--ray-address", cluster)
    out, err = process.communicate(timeout=290)
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["num_scored"] == 16
    assert [s["arch_id"] for s in result["students"]] == [e["arch_id"] for e in result["best"][:2]]
    for entry in result["students"]:
        assert entry["epochs"] == 6
        assert entry["test_acc"] > 70  # chance is 10; how high so short a training gets differs between processors
        assert entry["teacher_test_acc"] > 80
        student = tvt_ray.load_student(entry["path"])
        images = torch.stack([student.transform(digits.test[i][0]) for i in range(len(digits.test))])
        with torch.no_grad():
            hits = student(images).argmax(1).numpy() == digits.test.labels
        assert 100 * hits.mean() == pytest.approx(entry["test_acc"])
        history = [json.loads(line) for line in (Path(entry["path"]) / "metrics.jsonl").read_text().splitlines()]
        card = (Path(entry["path"]) / "README.md").read_text()
        assert f"{entry['test_acc']:.2f} % of the test images are named right (359 images; 95 % interval" in card
        assert "16 architectures of" in card
        assert f"this one has place {1 + result['students'].index(entry)}." in card
        assert "epochs: 6\n" in card
        measured = [m for m in RunFolder(folder).measurements().read() if m.arch_id == entry["arch_id"]]
        assert [(m.epochs, m.val_acc) for m in measured] == [(line["epoch"], line["val_acc"]) for line in history]
    run = Run.load(str(folder))
    assert {s.arch_id for s in run.students} == {s["arch_id"] for s in result["students"]}
    assert len(run.measurements) == 12
    assert run.measurements["recipe"].nunique() == 1


@pytest.mark.night
def test_distilling_on_two_workers_and_going_on_after_a_crash(searched, cluster, tmp_path, monkeypatch):
    """Two gloo workers; the first attempt dies after an epoch, the second goes on from its checkpoint."""
    import ray

    folder = shutil.copytree(searched[0], tmp_path / "run")
    settings = {"training_workers": 2, "max_failures": 0, "cpus_per_training_worker": 1}
    quick = {"lr": 5e-3, "warmup_epochs": 0}  # so that few images teach something
    two = variant(searched[1], distill=quick, cluster=settings)
    arch_id = min(RunFolder(folder).rows().read(), key=lambda row: row.flops).arch_id

    def dies_after_an_epoch(cohort):
        if cohort.epoch == 1:
            raise ValueError("power cut")

    before_each_epoch(monkeypatch, dies_after_an_epoch)
    with pytest.raises(RunError, match=r"power cut.*--arch-id .* --resume"):
        distill(folder, settings=two, arch_id=arch_id)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="unfinished training"):
        distill(folder, settings=two, arch_id=arch_id)
    with pytest.raises(UsageError, match="other settings"):
        distill(folder, settings=variant(two, distill={**quick, "epochs": 9}), arch_id=arch_id, resume=True)
    with watch("ray_tvt_val_accuracy_percent") as seen:
        (student,) = distill(folder, settings=two, arch_id=arch_id, resume=True)
    history = [json.loads(line) for line in (Path(student.path) / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history[0]["loss"] > history[-1]["loss"]
    assert seen & {(arch_id, line["val_acc"]) for line in history[1:]}
    measured = [m for m in RunFolder(folder).measurements().read() if m.arch_id == arch_id]
    assert sorted((m.epochs, m.val_acc) for m in measured) == [(line["epoch"], line["val_acc"]) for line in history]
    states = ray.get_actor("train_v2_state_actor", namespace="_train_state_actor")  # what the dashboard asks for runs
    runs = ray.get(states.get_train_runs.remote()).values()
    assert [run.status.name for run in runs if run.run_settings.train_loop_config["arch_ids"] == [arch_id]]
    (kept,) = distill(folder, settings=two, arch_id=arch_id, resume=True)
    assert kept == student


@pytest.mark.night
def test_a_job_that_does_not_fit_into_memory_goes_on_as_two(searched, cluster, tmp_path, monkeypatch, capsys):
    """Two students side by side run out of memory in their second epoch; each alone goes on from its first."""
    folder = shutil.copytree(searched[0], tmp_path / "run")
    one_job = variant(searched[1], cluster={"cpus_per_training_worker": 4, "max_failures": 0})

    def fits_one(cohort):
        if cohort.epoch == 1 and len(cohort.learners) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        assert cohort.epoch > 0 or len(cohort.learners) > 1, "its first epoch was lost"

    before_each_epoch(monkeypatch, fits_one)
    students = distill(folder, settings=one_job, top_k=2)
    assert "a cohort of 2 students ran out of memory, and goes on as two" in capsys.readouterr().err
    for student in students:
        history = [json.loads(line) for line in (Path(student.path) / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in history] == [1, 2, 3]


@pytest.mark.night
def test_a_student_begins_with_what_another_learned(cluster, config, digits_student, tmp_path, capsys):
    """One of the sizes of what was trained takes all of it, and its own training is next to none."""
    run, source = RunFolder(tmp_path / "run"), tmp_path / "source"
    shutil.copytree(digits_student, source)
    card = load_student(source).card
    still = {"epochs": 1, "lr": 1e-9, "warmup_lr": 1e-9, "min_lr": 0, "warmup_epochs": 0, "init": str(source)}
    settings = variant(config.model_copy(update={"space": card.space}), distill=still)
    run.make()
    run.claim(settings)
    arch_file = source / "arch.json"
    (student,) = distill(run.path, settings=settings, arch_file=arch_file, ray_address=cluster)
    count = len(load_student(source).student.state_dict())
    assert (
        f"init: {student.arch_id}: {count} of {count} tensors from {source} (vit, 3 blocks" in capsys.readouterr().err
    )
    assert student.test_acc == pytest.approx(card.results["test_acc"], abs=1)
    assert student.test_acc > 40  # chance is 10
    begun = json.loads((Path(student.path) / "distill.json").read_text())
    assert begun["init"] == f"weights {read_source(str(source)).digest}"
    assert load_student(student.path).card.origin.recipe["init"] == begun["init"]  # which says nothing of the disk
