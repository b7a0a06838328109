"""A student and its rivals, trained as real Ray Train jobs."""

import json
import shutil

import pytest

import tvt_ray
from tests.cluster.conftest import variant
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.runs.folder import RunFolder
from tvt_ray.verbs.compare import compare
from tvt_ray.verbs.distill import distill

SEEDS = 2


@pytest.mark.night
@pytest.mark.ray
@pytest.mark.slow
def test_a_student_and_its_rivals_are_trained_alike_and_compared(searched, cluster, tmp_path):
    folder, config = RunFolder(shutil.copytree(searched[0], tmp_path / "run")), searched[1]
    space = config.space
    row = min(folder.rows().read(), key=lambda row: (row.flops, row.arch_id))
    two_jobs = {"gpus_per_training_worker": 0, "cpus_per_training_worker": 2}
    settings = variant(config, distill={"epochs": 1, "batch_size": 16, "guided": "always"}, cluster=two_jobs)
    found = compare(folder.path, settings=settings, baselines=["alone", "deit"], num_seeds=SEEDS, arch_id=row.arch_id)

    student, alone, deit = found.rivals
    assert (student.name, alone.name, deit.name) == ("student", "alone", "deit")
    assert alone.arch_id == student.arch_id == row.arch_id
    assert all(len(each.test_accs) == SEEDS for each in found.rivals)
    assert student.ahead is None
    assert deit.ahead.value == pytest.approx(student.accuracy.value - deit.accuracy.value)
    for each in found.rivals:  # what the folders say, and what they are
        loaded = load_student(each.path)
        assert loaded.card.results["test_acc"] == pytest.approx(each.test_accs[0])
        assert loaded.card.results["guided"] == (each.name != "alone")
    assert student.path == str(folder.distill_folder / row.arch_id)
    written = json.loads((folder.path / "baselines.json").read_text())
    assert [each["name"] for each in written["rivals"]] == ["student", "alone", "deit"]
    assert "DeiT-Ti" in (folder.path / "baselines.html").read_text()

    measured = [each for each in folder.measurements().read() if each.arch_id == row.arch_id]
    assert len({each.recipe for each in measured}) == 2  # with the teacher and without
    assert {each.seed for each in measured} == {0, 1}
    ids = {space.arch_id(space.from_json(each.arch)) for each in folder.rows().read()}
    assert {each.arch_id for each in folder.measurements().read()} <= ids  # none of another space

    assert [each.path for each in distill(folder.path, settings=settings, arch_id=row.arch_id, resume=True)] == [
        student.path
    ]
    changed = {"distill": {"epochs": 1}}
    again = tvt_ray.compare(
        folder.path, baselines=["alone", "deit"], num_seeds=SEEDS, arch_id=row.arch_id, settings=changed, resume=True
    )
    assert again == found  # nothing was trained anew
    with pytest.raises(UsageError, match="holds a trained student; --resume goes on"):
        compare(folder.path, settings=settings, baselines=["deit"], num_seeds=1, arch_id=row.arch_id)
