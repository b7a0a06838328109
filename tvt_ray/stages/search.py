"""Search: thousands of architectures are read without training, each once."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvt_ray.cluster.connection import check_address, connected, resolve_address
from tvt_ray.cluster.metrics import record_rows
from tvt_ray.cluster.scoring import Outcome, run_workers
from tvt_ray.cluster.slots import Job, pack_job
from tvt_ray.data.datasets import check_outside
from tvt_ray.errors import RunError
from tvt_ray.latency.profile import DeviceProfile
from tvt_ray.progress import Meter, say
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import NUM_LISTED, Choice, RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.latency import find_profile, limits_of
from tvt_ray.runs.run import SearchSummary
from tvt_ray.scoring.ranking import Entry, Ranking
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.scoring.rows import Row, verified
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.batching import Calibrating, Dispatcher
from tvt_ray.searchers.recorder import Recorder, Scorer
from tvt_ray.searchers.sampler import Sampler
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.spaces import Arch
from tvt_ray.spaces.limits import Limits
from tvt_ray.stages.calibrate import calibration_archs, keep_calibration
from tvt_ray.stages.latency import Latency, check_chosen, with_latency
from tvt_ray.stages.reorder import write_order
from tvt_ray.stages.setup import (
    Stopwatch,
    check_latency,
    end_without_ray,
    load_data,
    load_teacher,
    make_task,
    on_sigterm,
    process_as_it_was,
    resolve,
)
from tvt_ray.storage.locations import Location
from tvt_ray.storage.locks import FolderLock
from tvt_ray.storage.parts import PartWriter
from tvt_ray.students.kernels import HAS_BF16


def run_search(
    config: RunConfig, run_dir: Location, resume: bool = False, ray_address: str | None = None
) -> SearchSummary:
    """Reads `config.search.num_samples` different architectures and writes the run folder.

    Raises UsageError for what is wrong beforehand, RunError when the run could not finish; rows are on disk either way.
    """
    clock, folder, config = Stopwatch(), RunFolder(run_dir), resolve(config)
    folder.check(config, resume)
    check_outside(folder.path, config.data.name)
    check_address(resolve_address(ray_address))
    with process_as_it_was():
        with clock("data"):
            profile = find_profile(config, folder)
            data = load_data(config)
            limits = limits_of(config, data.num_classes, profile)
            check_latency(limits)
            sample = calibration_archs(config, data.num_classes, limits)
        with clock("teacher"):  # one that does not fit is found out before the folder is made
            teacher = load_teacher(config, data) if config.teacher.weights else None
        identity = DataIdentity.of(data, config.probe)
        folder.make()
        with folder.lock() as lock:
            folder.check(config, resume)  # again: another driver may have been here meanwhile
            if resume:
                folder.check_data(identity)
            folder.keep_data(identity)
            if profile is not None:
                profile.save(folder.latency_file)
            folder.claim(config)
            with clock("teacher"):
                task = make_task(config, data, teacher or load_teacher(config, data, folder.path, ray_address))
            reading = _Reading(config, folder, limits, profile, lock, clock)
            clock.add("ray", 0.0)  # listed before the scoring that it is for
            start = time.perf_counter()
            with connected(ray_address, lambda reason: end_without_ray(reason, folder.search_command(config.plugins))):
                outcome = reading.run(task, sample)
            clock.add("ray", time.perf_counter() - start - outcome[1].seconds)
            return reading.conclude(outcome)


@dataclass(frozen=True)
class _Reading:
    """The part of a search that is done on the cluster, and what is made of it."""

    config: RunConfig
    folder: RunFolder
    limits: Limits
    profile: DeviceProfile | None  # that latencies were predicted by
    lock: FolderLock
    clock: Stopwatch

    def run(self, task: ReadingTask, sample: Sequence[Arch]) -> tuple[Outcome, Dispatcher]:
        """Replays the rows of an earlier run, calibrates unless it did, and reads what is left."""
        job = pack_job(self.config.cluster, task)
        self._warn_of_bfloat16(job)
        earlier = self.folder.rows().read()
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(PartWriter(self.folder.rows(), self.lock.check))
            dispatcher = self._make_dispatcher(task, sample, earlier, writer, stack)
            stack.enter_context(on_sigterm(dispatcher.stop))
            outcome = Outcome() if dispatcher.over else run_workers(job, dispatcher)
        self.clock.add("scoring", dispatcher.seconds)
        return outcome, dispatcher

    def _warn_of_bfloat16(self, job: Job) -> None:
        if self.config.probe.precision == "bfloat16" and not job.slots.gpus_each and not HAS_BF16:
            say("probe.precision is bfloat16, for which this processor has no instructions: float32 is much faster")

    def _make_dispatcher(
        self,
        task: ReadingTask,
        sample: Sequence[Arch],
        earlier: Sequence[Row],
        writer: PartWriter[Row],
        stack: contextlib.ExitStack,
    ) -> Dispatcher:
        settings, space = self._settings(), self.config.space
        calibrated = self.folder.calibration_file.exists()
        scorer = Scorer(
            self.config.score.zero_cost,
            settings.num_objectives,
            self.folder.calibration() if calibrated else None,
        )
        algorithm = build_algorithm(settings, space, self.config.seed)
        sampler = Sampler(algorithm, self.limits, self.config.seed)
        recorder = Recorder(writer.put, sampler, scorer, settings.searcher, record_rows, settings.max_failure_share)
        recorder.replay([(space.from_json(verified(row, space).arch), row) for row in earlier])
        if earlier:
            say(f"resuming: {len(earlier):,} architectures were read before")
        wanted = min(settings.num_samples, space.size())

        def calibrate(rows: Sequence[Row]) -> None:
            recorder.calibrate(keep_calibration(self.folder, rows))

        calibrating = None if calibrated else Calibrating(sample, calibrate)
        left, extra = max(0, wanted - len(earlier)), len(calibrating.sample) if calibrating else 0
        meter = stack.enter_context(Meter("scoring", wanted + extra, "architectures", len(earlier)))
        batch_size = self.config.cluster.archs_per_trial
        return Dispatcher(
            task, recorder, left, batch_size, calibrating, lambda count: meter.advance(count, _note(recorder))
        )

    def _settings(self) -> SearchSettings:
        """The searcher, or enumeration where everything was asked for."""
        settings, space = self.config.search, self.config.space
        if settings.searcher == "exhaustive" or settings.num_samples < space.size():
            return settings
        say(f"the space has {space.size():,} architectures, {settings.num_samples:,} were asked for: enumerating it")
        return settings.model_copy(update={"searcher": "exhaustive", "objectives": "score"})

    def conclude(self, result: tuple[Outcome, Dispatcher]) -> SearchSummary:
        """Top list and report of what is there. Raises RunError where that is less than it should be."""
        outcome, dispatcher = result
        parts = self.folder.rows()
        self.lock.check()
        parts.compact()
        rows = parts.read()
        note = self._explain_count(len(rows), dispatcher.recorder.sampler.exhausted)
        self._check_complete(rows, dispatcher.stop_reason, note)
        with self.clock("report"):
            ranking = write_order(self.folder, self.config, rows)
        return self._summarise(rows, ranking, outcome, dispatcher, note)

    def _choices(self, ranking: Ranking) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
        """The best, and the front; where a latency is limited, with those of the architectures that are printed."""
        best, front = ranking.top(NUM_LISTED), ranking.front()
        found: Mapping[str, Latency] = {}
        if self.profile is not None:
            with self.clock("latency"):
                found = check_chosen([*best, *ranking.ladder(NUM_LISTED)], self.limits, self.profile)

        def choices(entries: Sequence[Entry]) -> tuple[Choice, ...]:
            made = (Choice.of(each, self.config.space) for each in entries)
            return tuple(with_latency(each, found.get(each.arch_id)) for each in made)

        return choices(best), choices(front)

    def _check_complete(self, rows: Sequence[Row], stop_reason: str | None, note: str | None) -> None:
        wanted = self.config.search.num_samples
        if stop_reason or (note is None and len(rows) < wanted):
            reason = f": {stop_reason}" if stop_reason else ""
            raise RunError(
                f"stopped after {len(rows):,} of {wanted:,} architectures{reason}; rows that were written are in "
                f"{self.folder.rows_folder}; go on with: {self.folder.search_command(self.config.plugins)}"
            )
        if not any(row.status == "ok" for row in rows):
            raise RunError(f"all {len(rows)} architectures failed, the first with: {rows[0].error}")

    def _explain_count(self, num_rows: int, exhausted: bool) -> str | None:
        """Why there are fewer rows than requested, where that is not a failure."""
        wanted, size = self.config.search.num_samples, self.config.space.size()
        if num_rows >= wanted:
            return None
        if num_rows >= size:
            return f"the whole space was scored: it has {size:,} architectures, {wanted:,} were requested"
        if exhausted:
            found = f"{num_rows:,} of the {wanted:,} requested were scored"
            return f"{found}: no more were found within the budget ({self.config.budget})"
        return None

    def _summarise(
        self, rows: Sequence[Row], ranking: Ranking, outcome: Outcome, dispatcher: Dispatcher, note: str | None
    ) -> SearchSummary:
        scored, num_new = sum(row.status == "ok" for row in rows), dispatcher.recorder.num_rows
        best, pareto = self._choices(ranking)
        return SearchSummary(
            run_dir=str(self.folder.path),
            num_requested=self.config.search.num_samples,
            num_scored=scored,
            num_failed=len(rows) - scored,
            num_unique=len({row.arch_id for row in rows}),
            num_shapes=ranking.num_shapes,
            wall_s=round(self.clock.total, 2),
            archs_per_s=round(num_new / dispatcher.recorder.seconds, 2) if num_new else 0.0,
            seconds=self.clock.seconds,
            readings=self.config.score.to_read,
            score=ranking.by,
            best=best,
            pareto=pareto,
            num_workers=len(outcome.workers),
            num_pids=len(outcome.workers),
            num_nodes=outcome.num_nodes,
            searchers=dict(Counter(row.searcher for row in rows)),
            note=note,
        )


def _note(recorder: Recorder) -> str:
    failed = f", {recorder.errors.total():,} failed" if recorder.errors else ""
    return (f"best {recorder.best:.4g}" if recorder.best is not None else "calibrating") + failed
