"""What distil finds in a run folder, and does with it."""

import json

import pytest

from tests.conftest import SMALL_SPACES, call
from tvt_ray.errors import UsageError
from tvt_ray.verbs.distill import choose_rows, distill
from tvt_ray.verbs.session import Session

SPACE = SMALL_SPACES["autoformer"]


def test_any_architecture_of_the_space_can_be_trained(run_folder, tmp_path):
    """One that the run did not read."""
    read = {row.arch_id for row in run_folder.rows().read()}
    arch = next(arch for arch in SPACE.enumerate() if SPACE.arch_id(arch) not in read)
    file = tmp_path / "arch.json"
    file.write_text(json.dumps({"space": SPACE.name, "arch": SPACE.to_json(arch)}))
    with Session.open(run_folder.config(), run_folder.path, resume=True) as session:
        (row,) = choose_rows(session, arch_file=file)
    assert (row.arch_id, row.params, row.readings) == (SPACE.arch_id(arch), SPACE.cost(arch, 2).params, {})


def test_one_of_another_space_is_refused(run_folder, tmp_path):
    file = tmp_path / "arch.json"
    file.write_text(json.dumps({"embed_dim": 999, "depth": 1, "num_heads": [2], "mlp_ratio": [2]}))
    with (
        pytest.raises(UsageError, match="embed_dim is 999, allowed: 24"),
        Session.open(run_folder.config(), run_folder.path, resume=True) as session,
    ):
        choose_rows(session, arch_file=file)


def test_the_smallest_that_is_as_good_is_known_of_refined_runs_alone(run_folder, capsys):
    with pytest.raises(
        UsageError, match=r"--within is for a run that was refined: too few students of .* were measured"
    ):
        distill(run_folder.path, within=1.0)
    code, _, err = call(capsys, "distill", "--run-dir", run_folder.path, "--within", "1", "--top-k", "2")
    assert code == 2
    assert "not allowed with" in err
    code, _, err = call(capsys, "distill", "--run-dir", run_folder.path, "--within=-1")
    assert (code, "--within is a number of percentage points, at least 0; got -1" in err) == (2, True)
