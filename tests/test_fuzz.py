"""Files that a stranger may have made, damaged at random: each gives what it holds or a line, soon, in little memory.

`make fuzz` does so for half an hour; TVT_FUZZ_EXAMPLES says how many damaged files of each kind are tried.
"""

import copy
import functools
import io
import json
import os
import resource
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tests.conftest import SMALL_SPACES, make_row
from tests.data.samples import encode, picture
from tests.exports.conftest import write_folder
from tvt_ray.data.pixels import decode
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports.folder import load_student
from tvt_ray.judging.truth import read_ground_truth
from tvt_ray.latency.profile import load_profile
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.yaml_text import parse
from tvt_ray.scoring.rows import ROWS
from tvt_ray.scoring.scores import Calibration
from tvt_ray.storage.locations import as_location
from tvt_ray.storage.records import Records
from tvt_ray.teachers.checkpoints import read_content
from tvt_ray.verbs.inspect import inspect

pytestmark = [pytest.mark.night, pytest.mark.slow]
EXAMPLES = int(os.environ.get("TVT_FUZZ_EXAMPLES", "200"))
DEADLINE_MS = 10_000  # of one file
MOST_GROWTH = 2**30  # bytes that the process may grow by, over all files of a kind
FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=DEADLINE_MS,
    derandomize="TVT_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
SPACE = SMALL_SPACES["autoformer"]


@functools.cache
def student():
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    write_folder(folder, SPACE)
    return (folder / "arch.json").read_bytes(), (folder / "model.safetensors").read_bytes()


def config_of(folder, data):
    (folder / "config.yaml").write_bytes(data)
    inspect(folder)
    return RunFolder(folder).config()


def student_of(folder, card=None, weights=None):
    given_card, given_weights = student()
    (folder / "arch.json").write_bytes(given_card if card is None else card)
    (folder / "model.safetensors").write_bytes(given_weights if weights is None else weights)
    inspect(folder)
    return load_student(folder)


def rows_of(folder, data):
    (folder / "part-000000.parquet").write_bytes(data)
    return Records(folder, ROWS).read()


def read_by(reader, name):
    def read(folder, data):
        (folder / name).write_bytes(data)
        return reader(folder / name)

    return read


@functools.cache
def part():
    with tempfile.TemporaryDirectory() as folder:
        Records(as_location(folder), ROWS).append([make_row(number) for number in range(20)])
        return (Path(folder) / "part-000000.parquet").read_bytes()


def saved(state, older):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=not older)
    return file.getvalue()


STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
# By kind: a whole file, and what reads it.
KINDS = {
    "config": (lambda: RunConfig().to_yaml().encode(), config_of),
    "card": (lambda: student()[0], student_of),
    "weights": (lambda: student()[1], lambda folder, data: student_of(folder, weights=data)),
    "rows": (part, rows_of),
    "calibration": (
        lambda: json.dumps({"readings": [{"l2_norm": 1.5}, {"l2_norm": 2.0}]}).encode(),
        read_by(Calibration.load, "calibration.json"),
    ),
    "truth": (
        lambda: json.dumps({"arch": SPACE.to_json(next(iter(SPACE.enumerate()))), "x_acc": 81.5}).encode(),
        read_by(lambda path: read_ground_truth(path, SPACE, 10), "truth.jsonl"),
    ),
    "profile": (lambda: b'{"format": 1, "device": {}}', read_by(load_profile, "profile.json")),
    "safetensors": (lambda: save(STATE), read_by(read_content, "t.safetensors")),
    "zip": (lambda: saved(STATE, older=False), read_by(read_content, "t.pth")),
    "older": (lambda: saved(STATE, older=True), read_by(read_content, "t.pt")),
    **{
        kind: (functools.partial(encode, picture(0), kind), lambda folder, data: decode(data, "photo"))
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    },
}
TEXTS = {"config": yaml.safe_dump, "card": json.dumps, "calibration": json.dumps, "truth": json.dumps}

edits = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "cut", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=8,
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.just("x" * 100_000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def damaged(data, made):
    for kind, where, junk in made:
        place = int(where * len(data))
        if kind == "flip":
            data = (
                data[:place]
                + bytes(a ^ b for a, b in zip(data[place:], junk, strict=False))
                + data[place + len(junk) :]
            )
        elif kind == "insert":
            data = data[:place] + junk + data[place:]
        elif kind == "cut":
            data = data[:place] + data[place + 16 * len(junk) :]
        else:
            data = data[:place] + data[max(0, place - 64) : place] * (1 + junk[0] % 16) + data[place:]
    return data


def places(value, path=()):
    """Of everything in a nested value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


def gives_what_it_holds_or_a_line(read, data):
    with tempfile.TemporaryDirectory() as folder:
        try:
            read(Path(folder), data)
        except (UsageError, RunError) as error:
            assert "\n" not in str(error)  # noqa: PT017 (either comes of it)
            assert len(str(error)) < 4_000  # noqa: PT017


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(7200)
def test_a_damaged_file_is_read_or_refused_in_a_line(kind):
    make, read = KINDS[kind]
    whole = make()
    gives_what_it_holds_or_a_line(read, whole)
    before = peak()

    @FUZZED
    @given(edits)
    def try_one(made):
        gives_what_it_holds_or_a_line(read, damaged(whole, made))

    try_one()
    assert peak() - before < MOST_GROWTH


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.timeout(7200)
def test_a_value_of_another_kind_is_refused_in_a_line(kind):
    """Any part of the file becomes something else that is JSON or YAML all the same."""
    make, read = KINDS[kind]
    whole = parse(make())
    before = peak()

    @FUZZED
    @given(st.data())
    def try_one(data):
        path = data.draw(st.sampled_from(list(places(whole))))
        changed = replaced(whole, path, data.draw(values))
        gives_what_it_holds_or_a_line(read, TEXTS[kind](changed).encode("utf-8", "surrogatepass"))

    try_one()
    assert peak() - before < MOST_GROWTH
