"""The command that goes on with what was cut short."""

import shlex
from pathlib import Path

from tvt_ray.runs.resuming import distill_command, resume_command, resumed_by
from tvt_ray.storage.locations import RemotePath


def test_from_python_it_names_the_folder_and_what_settings_do_not_hold(tmp_path):
    assert resume_command(tmp_path, "python search.py") == f"python search.py --run-dir {tmp_path} --resume"
    named = resume_command(tmp_path, "tvt refine", "", ["a", "b"], "head:6379")
    assert named == f"tvt refine --run-dir {tmp_path} --resume --set plugins=[a,b] --ray-address head:6379"


def test_which_students_are_distilled_is_part_of_it():
    run = Path("/runs/a")
    assert distill_command(run) == "python distill.py --run-dir /runs/a --top-k 1 --resume"
    assert "--arch-id pit-b8 --resume" in distill_command(run, None, "pit-b8")
    assert "--arch '/my arch.json' --resume" in distill_command(run, arch_file=Path("/my arch.json"))
    beside = distill_command(run, beside=" --baselines middle --seeds 3")
    assert beside == "python distill.py --run-dir /runs/a --top-k 1 --baselines middle --seeds 3 --resume"


def test_it_is_quoted_for_a_shell(remote, tmp_path):
    bucket = RemotePath(remote.filesystem, "b/run", "s3://b/run?endpoint_override=localhost:9000")
    command = resume_command(bucket, "python search.py")
    assert command == "python search.py --run-dir 's3://b/run?endpoint_override=localhost:9000' --resume"
    words = shlex.split(distill_command(tmp_path / "a run's", 3))
    assert words == ["python", "distill.py", "--run-dir", str(tmp_path / "a run's"), "--top-k", "3", "--resume"]


def test_a_command_line_goes_on_with_all_of_it_not_with_the_verb_that_was_cut_short(tmp_path):
    with resumed_by(lambda: "tvt fit photos --out here"):
        assert resume_command(tmp_path, "python search.py") == "tvt fit photos --out here"
        assert distill_command(tmp_path, 2, beside=" --baselines middle") == "tvt fit photos --out here"
    assert "search.py" in resume_command(tmp_path, "python search.py")
