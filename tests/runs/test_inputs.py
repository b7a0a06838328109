"""Which profile a run's latencies are predicted by, and what is inside a limit."""

import json
import shlex

import pytest

from tests.conftest import SMALL_SPACES
from tests.latency.synthetic import OTHER, synthetic_profile, true_ms
from tvt_ray.cli.main import build_parser
from tvt_ray.cli.options import overrides
from tvt_ray.errors import UsageError
from tvt_ray.latency.profile import default_path, this_device
from tvt_ray.runs.config import difference, load_config
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.inputs import find_profile, limits_of, profile_command, within_latency
from tvt_ray.scoring.ranking import Entry, by_score
from tvt_ray.scoring.reader import ReadingTask, make_row

SPACE = SMALL_SPACES["vit"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Empty, so that no profile is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def limited(**budget):
    settings = {"space": SPACE.model_dump(mode="json"), "budget": {"max_latency_ms": 3, **budget}}
    return load_config(None, [settings])


def test_a_run_without_a_limit_needs_no_profile():
    config = limited(max_latency_ms=None)
    assert find_profile(config) is None
    assert limits_of(config, 10, None).latency_ms is None


def test_no_profile_on_this_machine_is_one_line_with_the_command():
    with pytest.raises(UsageError) as error:
        find_profile(limited())
    assert "\n" not in str(error.value)
    assert "max_latency_ms needs a latency profile of this space on this machine" in str(error.value)
    assert str(error.value).endswith(profile_command(limited()))


@pytest.mark.parametrize("size", [1, 8])
def test_the_command_measures_the_very_space_and_batch_size(size):
    config = limited(latency_batch_size=size)
    args = build_parser().parse_args(shlex.split(profile_command(config))[1:])
    assert load_config(None, [overrides(args)]).space == SPACE
    assert (args.batch_size or [1]) == [size]
    assert profile_command(load_config(None)) == "tvt profile"


def test_the_profile_of_this_machine_is_found_in_the_cache():
    profile = synthetic_profile(SPACE)
    profile.save(default_path(this_device("cpu"), SPACE))
    assert find_profile(limited()) == profile


def test_a_runs_own_copy_comes_before_a_file_and_that_before_the_machines(tmp_path):
    own, given, cached = (synthetic_profile(SPACE, device=OTHER.model_copy(update={"name": name})) for name in "abc")
    cached.save(default_path(this_device("cpu"), SPACE))
    given.save(tmp_path / "given.json")
    config, folder = limited(latency_profile=tmp_path / "given.json"), RunFolder(tmp_path / "run")
    assert find_profile(config, folder) == given
    own.save(folder.latency_file)
    assert find_profile(config, folder) == own
    assert find_profile(config) == given
    assert find_profile(limited()) == cached


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"latency_batch_size": 3}, "has no batch size 3; choices: 1, 4"),
        ({"latency_profile": "missing.json"}, "there is no latency profile .*missing.json"),
        ({"latency_profile": "other.json"}, "other.json is of another space: space.image_size is 64 there and 32 here"),
        ({"latency_profile": "broken.json"}, "broken.json is damaged"),
    ],
)
def test_profiles_that_cannot_be_used_are_one_line(budget, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthetic_profile(SPACE).save(default_path(this_device("cpu"), SPACE))
    synthetic_profile(SPACE.model_copy(update={"image_size": 64})).save(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageError, match=message):
        find_profile(limited(**budget))


@pytest.mark.parametrize(("batch_size", "limit"), [(1, 3.5), (4, 12)])
def test_limits_admit_what_is_predicted_to_be_inside(batch_size, limit):
    config = limited(max_latency_ms=limit, latency_batch_size=batch_size)
    limits = limits_of(config, 10, synthetic_profile(SPACE))
    admitted = [limits.admit(arch) for arch in SPACE.enumerate()]
    assert admitted == [true_ms(SPACE, arch, batch_size) <= limit for arch in SPACE.enumerate()]
    assert len(set(admitted)) == 2


def test_where_the_profile_lies_makes_no_other_run_the_limit_does():
    assert difference(limited(latency_profile="a.json"), limited(latency_profile="b.json")) is None
    assert difference(limited(), limited(max_latency_ms=4)) == "budget.max_latency_ms is 3.0 here and 4.0 there"
    assert "budget.latency_batch_size" in difference(limited(), limited(latency_batch_size=4))


@pytest.fixture
def folder(tmp_path):
    """A run of all architectures of the space."""
    folder = RunFolder(tmp_path / "run")
    folder.claim(limited(max_latency_ms=None))
    folder.keep_data(DataIdentity("digits", "f", ("a", "b"), {"train": 1}, (0,)))
    return folder


def ranking_of_all():
    task = ReadingTask(SPACE, 10, (), 0, probe=None)
    rows = [make_row(task, arch, {}, None, 0.5) for arch in SPACE.enumerate()]
    return by_score("capacity", [Entry(row, float(number)) for number, row in enumerate(rows)])


def test_a_ranking_is_cut_to_what_is_predicted_to_meet_a_limit(folder):
    synthetic_profile(SPACE).save(default_path(this_device("cpu"), SPACE))
    ranking = ranking_of_all()
    inside = within_latency(ranking, 3.0, folder)
    expected = [each for each in ranking.scored if true_ms(SPACE, SPACE.from_json(each.row.arch)) <= 3.0]
    assert inside.scored == tuple(expected)
    assert 0 < len(expected) < len(ranking.scored)


def test_a_ranking_cannot_be_cut_without_a_profile_or_a_limit(folder):
    with pytest.raises(UsageError, match="measured once, in minutes, by: tvt profile"):
        within_latency(ranking_of_all(), 3.0, folder)
    with pytest.raises(UsageError, match="more than 0; got -1"):
        within_latency(ranking_of_all(), -1, folder)


def test_what_is_listed_of_a_run_without_a_limit_says_nothing_of_latency(folder):
    synthetic_profile(SPACE).save(folder.latency_file)
    folder.write_top(ranking_of_all(), SPACE)
    best = json.loads((folder.path / "top.json").read_text())["best"][0]
    assert best.keys() == {"arch_id", "score", "params", "flops", "arch"}
