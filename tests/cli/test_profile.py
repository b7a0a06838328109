"""tvt profile, and the limit that it is for."""

import json

import pytest

from tests.conftest import call
from tvt_ray.latency.predictor import Predictor
from tvt_ray.latency.profile import default_path, load_profile, this_device
from tvt_ray.vits.vit import ViTSpace

TINY = ViTSpace(image_size=16, embed_dim=(24,), depth=(1, 4), head_dim=(12,), mlp_ratio=(1,), patch_size=(8,))
SPACE = ["--set", f"space={json.dumps(TINY.model_dump(mode='json'))}"]
QUICK = [*SPACE, "--readings", "score", "--set", "score.calibration_samples=2", "--dry-run", "--json"]


def test_a_limit_without_a_profile_is_one_line_with_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, err = call(capsys, "search", "--max-latency-ms", "3", "--dry-run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("one is measured once, in minutes, by: tvt profile\n")


@pytest.mark.parametrize(
    ("limit", "message"), [("-1", "above 0; got -1"), ("0", "above 0; got 0"), ("fast", "above 0; got 'fast'")]
)
def test_a_limit_that_is_none_is_refused(limit, message, capsys):
    code, _, err = call(capsys, "search", f"--max-latency-ms={limit}", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.slow
def test_a_machine_is_measured_once_and_searches_are_limited_by_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, _ = call(capsys, "profile", *SPACE, "--batch-size", "2", "--threads", "1", "--json")
    told = json.loads(out.splitlines()[-1])
    assert code == 0
    assert told["path"] == str(default_path(this_device("cpu"), TINY))
    assert (told["space"], told["threads"], told["backend"]) == ("vit", 1, "torch")
    (batch,) = told["batches"]
    assert (batch["batch_size"], batch["num_checked"]) == (2, 4)
    fastest, slowest = batch["students_ms"]
    assert 0 < fastest < slowest
    assert load_profile(default_path(this_device("cpu"), TINY)).batch(2).error.median == batch["median_error"]

    predicted_ms = Predictor.of(load_profile(default_path(this_device("cpu"), TINY)).batch(2), TINY, 10)
    between = (fastest * slowest) ** 0.5
    students_ms = [predicted_ms(arch) for arch in TINY.enumerate()]
    assert min(students_ms) < between < max(students_ms)
    for limit in (slowest * 10, between):
        flags = ["--max-latency-ms", limit, "--set", "budget.latency_batch_size=2"]
        code, out, err = call(capsys, "search", *QUICK, *flags)
        assert code == 0, err
        inside = sum(ms <= limit for ms in students_ms)
        assert json.loads(out.splitlines()[-1])["budget_share"] == inside / len(students_ms)
    assert max(students_ms) < slowest * 10
    code, _, err = call(capsys, "search", *QUICK, "--max-latency-ms", "1")
    assert (code, err) == (2, "error: the latency profile has no batch size 1; choices: 2, or profile anew\n")
    impossible = ["--max-latency-ms", "1e-6", "--set", "budget.latency_batch_size=2"]
    code, _, err = call(capsys, "search", *QUICK, *impossible)
    assert code == 2
    assert "meets max_latency_ms 1e-06: the fastest is predicted to take" in err.splitlines()[-1]
