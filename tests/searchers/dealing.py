"""A dispatcher with all that it needs, and workers that say what a test makes up for each architecture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.searchers.driving import Remembering
from tvt_ray.errors import RunError
from tvt_ray.proxies.probe import ProbeSettings, build_probe
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.batching import Batch, Calibrating, Dispatcher
from tvt_ray.searchers.recorder import Recorder, Scorer
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Budget, Limits


def make_task(space, digits):
    """A real one, which needs no teacher since nothing of the teacher is read."""
    probe = build_probe(digits.train, ProbeSettings(num_images=2), space.image_size, None)
    return ReadingTask(space, digits.num_classes, ("rank_sum", "log_norm"), 0, probe)


def readings(space, arch):
    """Made up: two numbers that depend on the architecture alone."""
    indices = space.encode(arch)
    return {"rank_sum": 1.0 + sum(indices), "log_norm": 1.0 + sum(i * n for i, n in enumerate(indices)) / 7}


def calibration_of(task, sample):
    """The scale that a sample gives."""
    return Calibration(
        tuple(
            {**readings(task.space, arch), "params": float(task.space.cost(arch, task.num_classes).params)}
            for arch in sample
        )
    )


@dataclass
class Run:
    """A dispatcher, and what came out of it."""

    task: ReadingTask
    dispatcher: Dispatcher
    sampler: Remembering
    written: list[Row]
    calibrated: list[Sequence[Row]] = field(default_factory=list)  # what the calibration was made of
    counts: list[int] = field(default_factory=list)  # what `on_read` heard

    @property
    def recorder(self) -> Recorder:
        return self.dispatcher.recorder

    @property
    def ids(self) -> list[str]:
        """Of the rows that were written."""
        return [row.arch_id for row in self.written]

    def id(self, arch: Arch) -> str:
        return self.task.space.arch_id(arch)

    def measure(self, batch: Batch, seconds: float = 1.0):
        """What a worker says of a batch in which nothing goes wrong."""
        return [(readings(self.task.space, arch), None, seconds, "CPU") for arch in batch.archs]

    def read(self, worker: str, seconds: float = 1.0) -> Batch | None:
        """A worker asks, and reads what it is given."""
        batch = self.dispatcher.next(worker)
        if batch is not None:
            self.dispatcher.done(worker, self.measure(batch, seconds))
        return batch

    def read_all(self, worker: str = "w", seconds: float = 1.0) -> list[Batch]:
        """One worker reads until nothing is left; the batches that it was given."""
        batches = []
        while (batch := self.read(worker, seconds)) is not None:
            batches.append(batch)
        return batches


def make_run(
    task, total, sample=(), batch_size=None, searcher="random", score="capacity", max_failure_share=1.0, budget=None
):
    """With a `sample` it is read first; without one the run is calibrated already."""
    settings = SearchSettings(searcher=searcher)
    limits = Limits(task.space, budget or Budget(), task.num_classes)
    sampler = Remembering(build_algorithm(settings, task.space, 0), limits, 0)
    written: list[Row] = []
    known = None if sample else calibration_of(task, [task.space.decode([0] * len(task.space.dimensions))])
    scorer = Scorer(score, calibration=known)
    recorder = Recorder(written.extend, sampler, scorer, searcher, max_failure_share=max_failure_share)
    run = Run(task, None, sampler, written)

    def calibrate(rows):
        run.calibrated.append(list(rows))
        calibration = Calibration.from_rows(rows)
        if not calibration.sample:
            raise RunError(f"none of the {len(rows)} could be read; the first: {rows[0].error}")
        recorder.calibrate(calibration)

    calibrating = Calibrating(sample, calibrate) if sample else None
    run.dispatcher = Dispatcher(task, recorder, total, batch_size, calibrating, run.counts.append)
    return run
