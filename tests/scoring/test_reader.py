"""From an architecture to a row: readings that depend on it alone, and reasons where there are none."""

import dataclasses
import random
import threading
import time
import weakref

import pytest
import torch

from tests.conftest import SMALL_SPACES
from tvt_ray.proxies import PROXIES, Proxy
from tvt_ray.scoring.faults import DeviceError
from tvt_ray.scoring.reader import Reader, ReadingTask, make_row, time_limit
from tvt_ray.scoring.scores import FULL, ScoreSettings


@pytest.fixture
def task(space, probe):
    return ReadingTask(space, 10, ScoreSettings().to_read, 0, probe)


def first(space):
    """Some architecture of a space."""
    return space.sample(random.Random(0))


def test_rows_carry_everything(task):
    arch = first(task.space)
    row = Reader(task).read(arch)
    assert row.status == "ok"
    assert row.error is None
    assert row.arch_id == task.space.arch_id(arch)
    assert task.space.from_json(row.arch) == arch
    assert (row.params, row.flops) == task.space.cost(arch, 10)
    assert (row.shape, row.depth) == (task.space.shape(arch), task.space.num_blocks(arch))
    assert row.readings.keys() == {"attention_similarity", "l2_norm", "rank_sum", "log_norm"} == set(FULL)
    assert row.seconds > 0
    assert (row.space, row.seed, row.searcher) == (task.space.name, 0, "")
    assert row.device == f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    assert "score" not in {field.name for field in dataclasses.fields(row)}


def test_a_reading_depends_on_the_architecture_not_on_the_moment(task):
    """Any order, any batch, another reader, whatever the global generator's state."""
    archs = [task.space.sample(random.Random(i)) for i in range(12)]
    forward = {row.arch_id: row.readings for row in Reader(task).read_all(archs)}
    torch.manual_seed(123)
    backward = {row.arch_id: row.readings for row in Reader(task).read_all(archs[::-1])}
    alone = {task.space.arch_id(arch): Reader(task).readings(arch) for arch in archs}
    assert forward == backward == alone
    reseeded = Reader(dataclasses.replace(task, seed=1)).readings(archs[0])
    assert reseeded != alone[task.space.arch_id(archs[0])]


def test_a_task_that_reads_nothing_still_says_what_an_architecture_costs(task):
    arch = first(task.space)
    row = Reader(dataclasses.replace(task, proxies=())).read(arch)
    assert (row.status, row.readings) == ("ok", {})
    assert row.values == {"params": row.params, "flops": row.flops, "depth": row.depth}


def test_what_goes_wrong_is_a_row_with_its_reason(probe, monkeypatch):
    space = SMALL_SPACES["autoformer"]
    task = ReadingTask(space, 10, ("attention_similarity",), 0, probe)
    monkeypatch.setitem(PROXIES, "attention_similarity", Proxy(lambda student, probe: float("nan")))
    row = Reader(task).read(first(space))
    assert (row.status, row.error) == ("failed", "ArithmeticError: attention_similarity is not a finite number")
    assert row.readings == {}
    monkeypatch.setitem(PROXIES, "attention_similarity", Proxy(lambda student, probe: 1 / 0))
    assert Reader(task).read(first(space)).error == "ZeroDivisionError: division by zero"


def test_every_reading_that_is_not_finite_is_named(probe, monkeypatch):
    space = SMALL_SPACES["pit"]
    for name, value in (("snip", float("inf")), ("zen", 1.0), ("nwot", float("-inf"))):
        monkeypatch.setitem(PROXIES, name, Proxy(lambda student, probe, value=value: value))
    with pytest.raises(ArithmeticError, match=r"^snip, nwot is not a finite number$"):
        Reader(ReadingTask(space, 10, ("snip", "zen", "nwot"), 0, probe)).readings(first(space))


def test_readings_are_the_mean_over_the_initialisations(task):
    arch = first(task.space)
    (one, two), three = (
        [Reader(task)._of_draw(arch, draw) for draw in (0, 1)],
        Reader(dataclasses.replace(task, num_inits=2)).readings(arch),
    )
    assert one["attention_similarity"] != two["attention_similarity"]
    assert three == pytest.approx({name: (one[name] + two[name]) / 2 for name in one})


def test_out_of_memory_is_met_with_smaller_chunks_and_the_same_result(task, monkeypatch):
    arch = first(task.space)
    expected, seen = Reader(task).readings(arch), []
    infer = PROXIES["attention_similarity"].read

    def small_memory(student, probe):
        seen.append(probe.chunk)
        if probe.chunk > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return infer(student, probe)

    monkeypatch.setitem(PROXIES, "attention_similarity", Proxy(small_memory, "teacher"))
    reader = Reader(task)
    assert reader.readings(arch) == pytest.approx(expected, rel=1e-5)
    assert seen[-1] == 2
    assert reader.probe.chunk == seen[0]  # a smaller architecture is not slowed down


def test_what_fits_in_no_chunk_is_a_row_with_its_reason(task, monkeypatch):
    def no_memory(student, probe):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(PROXIES, "attention_similarity", Proxy(no_memory, "teacher"))
    assert Reader(task).read(first(task.space)).error == "OutOfMemoryError: CUDA out of memory"


@pytest.mark.parametrize("said", ["CUDA out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_memory_that_ran_out_is_freed_before_a_reading_is_tried_again(task, monkeypatch, said):
    """Of any reading, however its library says it: while a second try runs, nothing of the first is left."""
    alive = []

    class Large:
        """Stands for the tensors of a pass."""

    def read(student, probe):
        assert not [each for each in alive if each() is not None]
        held = Large()
        alive.append(weakref.ref(held))
        if probe.chunk > 2:
            raise RuntimeError(said)
        return float(len(held.__class__.__name__))

    monkeypatch.setitem(PROXIES, "nwot", Proxy(read))
    reader = Reader(dataclasses.replace(task, proxies=("l2_norm", "nwot")))
    assert reader.readings(first(task.space))["nwot"] == 5
    assert len(alive) > 1


def test_a_device_that_fails_is_no_result_of_the_architecture(task, monkeypatch):
    def fail(student, probe):
        raise RuntimeError("CUDA error: device-side assert triggered\nsecond line")

    monkeypatch.setitem(PROXIES, "attention_similarity", Proxy(fail, "teacher"))
    with pytest.raises(DeviceError, match=r"^CUDA error: device-side assert triggered$"):
        Reader(task).read(first(task.space))


def test_what_takes_too_long_is_a_row_with_its_reason(task, monkeypatch):
    calm = Reader(dataclasses.replace(task, max_seconds=30.0)).read(first(task.space))
    assert calm.status == "ok"
    monkeypatch.setitem(PROXIES, "attention_similarity", Proxy(lambda student, probe: time.sleep(20)))
    row = Reader(dataclasses.replace(task, max_seconds=0.05)).read(first(task.space))
    assert row.error == "TimeoutError: reading it took more than 0.05 s (search.max_seconds_per_arch)"
    assert row.seconds < 15


def test_a_time_limit_is_over_with_its_block_and_asks_nothing_of_another_thread():
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # no alarm rings afterwards
    raised = []

    def slow():
        try:
            with time_limit(0.01):
                time.sleep(0.05)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    thread.join()
    assert raised == []


def test_bfloat16_ranks_like_float32_and_leaves_the_other_readings_alone(task):
    archs = [task.space.sample(random.Random(i)) for i in range(12)]
    half = dataclasses.replace(task, probe=dataclasses.replace(task.probe, precision=torch.bfloat16))
    exact, rounded = (Reader(each).read_all(archs) for each in (task, half))
    for one, two in zip(exact, rounded, strict=True):
        name = "attention_similarity"
        assert two.readings[name] == pytest.approx(one.readings[name], rel=0.05)
        assert two.readings[name] != one.readings[name]
        assert {**two.readings, name: 0} == {**one.readings, name: 0}


def test_float32_is_exact_while_reading_and_as_it_was_afterwards(task, monkeypatch):
    """On a GPU convolutions would be in TF32. The switches are there on a CPU too."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    seen = []

    def look(student, probe):
        seen.append((conv.fp32_precision, matmul.fp32_precision))
        return 1.0

    monkeypatch.setitem(PROXIES, "l2_norm", Proxy(look))
    before = conv.fp32_precision, matmul.fp32_precision
    conv.fp32_precision = matmul.fp32_precision = "tf32"
    try:
        Reader(dataclasses.replace(task, proxies=("l2_norm",))).readings(first(task.space))
        assert seen == [("ieee", "ieee")]
        assert (conv.fp32_precision, matmul.fp32_precision) == ("tf32", "tf32")
    finally:
        conv.fp32_precision, matmul.fp32_precision = before


def test_what_a_worker_measured_becomes_the_row_that_it_would_have_made(task):
    arch = first(task.space)
    row = Reader(task).read(arch)
    assert make_row(task, arch, row.readings, None, row.seconds, row.device) == row
    failed = make_row(task, arch, {}, "its worker died", 0.0)
    assert (failed.status, failed.error, failed.readings) == ("failed", "its worker died", {})
    assert (failed.params, failed.flops, failed.shape) == (row.params, row.flops, row.shape)
