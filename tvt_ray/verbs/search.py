"""Search: thousands of architectures are read without training, each once."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvt_ray.cluster.metrics import record_rows
from tvt_ray.cluster.scoring import Outcome, run_architectures, run_workers
from tvt_ray.cluster.slots import Job, pack_job
from tvt_ray.cluster.trials import Audience, check_stopper, make_callbacks
from tvt_ray.data.datasets import check_outside
from tvt_ray.errors import RunError
from tvt_ray.plugins import load_plugins
from tvt_ray.progress import Meter, say
from tvt_ray.runs.config import RunConfig, load_config
from tvt_ray.runs.folder import NUM_LISTED, Choice, RunFolder
from tvt_ray.runs.inputs import make_task
from tvt_ray.runs.process import on_sigterm
from tvt_ray.runs.resuming import resume_command
from tvt_ray.runs.run import Run, SearchSummary
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.scoring.reader import ReadingTask
from tvt_ray.scoring.rows import Row, may_be_read_again, verified
from tvt_ray.scoring.scores import Calibration, calibration_archs
from tvt_ray.searchers import build_algorithm
from tvt_ray.searchers.batching import Calibrating, Dispatcher
from tvt_ray.searchers.recorder import Recorder, Sampler, Scorer
from tvt_ray.searchers.settings import SearchSettings
from tvt_ray.storage.locations import as_location
from tvt_ray.storage.records import RecordWriter
from tvt_ray.verbs.latency import check_chosen
from tvt_ray.verbs.report import write_order
from tvt_ray.verbs.session import Session
from tvt_ray.vits import Arch
from tvt_ray.vits.kernels import HAS_BF16


def search(
    config: Session | RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    ray_address: str | None = None,
    callbacks: Sequence[Any] = (),
    stop: Any = None,
) -> Run:
    """Scores `config.search.num_samples` untrained architectures, as Tune trials on Ray: the run, with its `summary`.

    `config`: a RunConfig, a YAML file, or settings to change in the defaults, as in {"search": {"num_samples": 64}};
    or an open session, which the other arguments are of already. `run_dir`: a folder or URI; None makes one below
    runs/. A Ray session that this process has is used and left; else one is started (or `ray_address` joined) and
    ended. `callbacks`: of Ray Tune, beside those of `search.callbacks`, which hear of each architecture as of a trial.
    `stop`: a `ray.tune.Stopper`, which is told of each as of a result, and may end the search before its number.
    Raises UsageError for what is wrong beforehand, RunError when the run could not finish; what was read is on
    disk either way, and `resume=True` goes on with it.
    """
    if isinstance(config, Session):
        return Run(config.folder.path, _search(config, callbacks, stop))
    location = as_location(run_dir or f"runs/{time.strftime('%Y%m%d-%H%M%S')}")
    wanted = RunFolder(location).config_for({}) if config is None and resume else as_config(config)
    with Session.open(wanted, location, resume=resume, ray_address=ray_address) as session:
        return Run(location, _search(session, callbacks, stop))


def as_config(config: RunConfig | Mapping[str, Any] | str | Path | None) -> RunConfig:
    """Raises UsageError for a file that is not there and settings that are wrong."""
    if isinstance(config, RunConfig):
        load_plugins(config.plugins)
        return config
    if config is None or isinstance(config, Mapping):
        return RunConfig().with_(config or {})
    return load_config(Path(config).expanduser())


def _search(session: Session, callbacks: Sequence[Any], stop: Any) -> SearchSummary:
    config, folder = session.config, session.folder
    check_stopper(stop)
    callbacks = [*make_callbacks(config.search.callbacks), *callbacks]
    folder.check(config, session.resume)
    check_outside(folder.path, config.data.name)
    _ = session.profile  # needs no images, and so is found wanting before they are read
    sample = calibration_archs(session.limits, config.seed, config.score.calibration_samples)
    if config.teacher.weights:  # those that do not fit are found out before the folder is made
        _ = session.reading_teacher
    session.begin()
    task = make_task(config, session.data, session.reading_teacher)
    reading = _Reading(session)
    session.clock.add("ray", 0.0)  # listed before the scoring that it is for
    start = time.perf_counter()
    session.join_ray(reading.resume_command)
    outcome, dispatcher = reading.run(task, sample, callbacks, stop)
    session.clock.add("ray", time.perf_counter() - start - dispatcher.seconds)
    return reading.conclude(outcome, dispatcher)


class _Reading:
    """The part of a search that is done on the cluster, and what is made of it."""

    def __init__(self, session: Session) -> None:
        self.session, self.config, self.folder = session, session.config, session.folder
        self.lock, self.clock = session.lock, session.clock
        self.resume_command = resume_command(
            self.folder.path, "python search.py", "", self.config.plugins, session.ray_address
        )

    def run(
        self, task: ReadingTask, sample: Sequence[Arch], callbacks: Sequence[Any], stop: Any
    ) -> tuple[Outcome, Dispatcher]:
        """Replays the rows of an earlier run, calibrates unless it did, and reads what is left."""
        job = pack_job(self.config.cluster, task)
        self._warn_of_bfloat16(job)
        earlier = self.folder.rows().read()
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(RecordWriter(self.folder.rows(), self.lock.check))
            audience = stack.enter_context(
                Audience.gathered(callbacks, self.folder.path, self.config.search.num_samples, stop)
            )
            dispatcher = self._make_dispatcher(task, sample, earlier, writer, audience, stack)
            stack.enter_context(on_sigterm(dispatcher.stop))
            read = run_workers if self.config.cluster.trial == "worker" else run_architectures
            outcome = Outcome() if dispatcher.over else read(job, dispatcher)
        if read is run_architectures and dispatcher.num_read:
            _say_what_trials_cost(dispatcher, len(outcome.workers))
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
        writer: RecordWriter[Row],
        audience: Audience,
        stack: contextlib.ExitStack,
    ) -> Dispatcher:
        settings, space = self._settings(), self.config.space
        calibrated = self.folder.calibration_file.exists()
        calibration = self.folder.calibration() if calibrated else None
        scorer = Scorer(self.config.score.zero_cost, settings.num_objectives, calibration)
        algorithm = build_algorithm(settings, space, self.config.seed)
        sampler = Sampler(algorithm, self.session.limits, self.config.seed)

        def watch(rows: Sequence[Row], best: float | None) -> None:
            record_rows(rows, best)
            audience.tell(rows, recorder.scorer.score)
            if audience.end_reason:
                recorder.end(audience.end_reason)

        recorder = Recorder(writer.put, sampler, scorer, settings.searcher, watch, settings.max_failure_share)
        known = [(space.from_json(verified(row, space).arch), row) for row in earlier]
        again = [arch for arch, row in known if may_be_read_again(row)]
        read = [(arch, row) for arch, row in known if not may_be_read_again(row)]
        for arch in again:
            sampler.skip(arch)
        recorder.replay(read)
        if earlier:
            told = f", and {len(again):,} that failed by their device are read again" if again else ""
            say(f"resuming: {len(read):,} architectures were read before{told}")
        wanted = min(settings.num_samples, space.size())

        def calibrate(rows: Sequence[Row]) -> None:
            recorder.calibrate(self._keep_calibration(rows))

        calibrating = None if calibrated else Calibrating(sample, calibrate)
        left, extra = max(0, wanted - len(earlier)), len(calibrating.sample) if calibrating else 0
        meter = stack.enter_context(Meter("scoring", wanted + extra, "architectures", len(read)))
        batch_size = self.config.cluster.archs_per_trial if self.config.cluster.trial == "worker" else 1
        return Dispatcher(
            task, recorder, left, batch_size, calibrating, lambda count: meter.advance(count, _note(recorder)), again
        )

    def _keep_calibration(self, rows: Sequence[Row]) -> Calibration:
        calibration = Calibration.from_rows(rows)
        if not calibration.sample:
            failed = f"none of the {len(rows)} calibration architectures could be read"
            raise RunError(f"{failed}; the first: {rows[0].error}")
        calibration.save(self.folder.calibration_file)
        return calibration

    def _settings(self) -> SearchSettings:
        """The searcher, or enumeration where everything was asked for."""
        settings, space = self.config.search, self.config.space
        if settings.searcher == "exhaustive" or settings.num_samples < space.size():
            return settings
        say(f"the space has {space.size():,} architectures, {settings.num_samples:,} were asked for: enumerating it")
        return settings.with_(searcher="exhaustive", objectives="score")

    def conclude(self, outcome: Outcome, dispatcher: Dispatcher) -> SearchSummary:
        """Top list and report of what is there. Raises RunError where that is less than it should be."""
        parts = self.folder.rows()
        self.lock.check()
        parts.compact()
        self.session.rows = rows = parts.read()
        note = self._explain_count(len(rows), dispatcher.recorder)
        self._check_complete(rows, dispatcher.stop_reason, note)
        with self.clock("report"):
            ranking = write_order(self.folder, self.config, rows)
        return self._summarise(rows, ranking, outcome, dispatcher, note)

    def _choices(self, ranking: Ranking) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
        """The best, and the front; where a latency is limited, with those of the architectures that are printed."""
        space = self.config.space
        best, front, ladder = (
            [Choice.of(each, space) for each in entries]
            for entries in (ranking.top(NUM_LISTED), ranking.front(), ranking.ladder(NUM_LISTED))
        )
        found: Mapping[str, Choice] = {}
        if self.session.profile is not None:
            with self.clock("latency"):
                found = check_chosen([*best, *ladder], self.session.limits, self.session.profile)
        timed_best, timed_front = ([found.get(each.arch_id, each) for each in choices] for choices in (best, front))
        return tuple(timed_best), tuple(timed_front)

    def _check_complete(self, rows: Sequence[Row], stop_reason: str | None, note: str | None) -> None:
        wanted = self.config.search.num_samples
        if stop_reason or (note is None and len(rows) < wanted):
            reason = f": {stop_reason}" if stop_reason else ""
            raise RunError(
                f"stopped after {len(rows):,} of {wanted:,} architectures{reason}; rows that were written are in "
                f"{self.folder.rows_folder}; go on with: {self.resume_command}"
            )
        if not any(row.status == "ok" for row in rows):
            raise RunError(f"all {len(rows)} architectures failed, the first with: {rows[0].error}")

    def _explain_count(self, num_rows: int, recorder: Recorder) -> str | None:
        """Why there are fewer rows than requested, where that is not a failure."""
        wanted, size = self.config.search.num_samples, self.config.space.size()
        if num_rows >= wanted:
            return None
        if num_rows >= size:
            return f"the whole space was scored: it has {size:,} architectures, {wanted:,} were requested"
        found = f"{num_rows:,} of the {wanted:,} requested were scored"
        if recorder.end_reason:
            return f"{found}: {recorder.end_reason}"
        if recorder.sampler.exhausted:
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


def _say_what_trials_cost(dispatcher: Dispatcher, num_workers: int) -> None:
    beside = (dispatcher.seconds * num_workers - dispatcher.seconds_reading) / dispatcher.num_read
    say(
        f"each architecture was a Tune trial of its own: {1e3 * beside:,.0f} ms of a worker's time each, beside "
        f"{1e3 * dispatcher.seconds_reading / dispatcher.num_read:,.0f} ms of reading it; as --trial worker they are "
        "handed out in batches"
    )


def _note(recorder: Recorder) -> str:
    failed = f", {recorder.errors.total():,} failed" if recorder.errors else ""
    return (f"best {recorder.best:.4g}" if recorder.best is not None else "calibrating") + failed
