"""Rows as they arrive: handed on for writing, told to the searcher once they can be scored, counted, judged."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvt_ray.errors import RunError, UsageError
from tvt_ray.scoring.calibration import Calibration
from tvt_ray.scoring.rows import Row
from tvt_ray.searchers.protocol import Values
from tvt_ray.searchers.sampler import Sampler
from tvt_ray.vits import Arch

MIN_ROWS_TO_JUDGE = 20  # before a share of failures says anything


@dataclass(frozen=True)
class Scorer:
    """Turns rows into what a searcher is told."""

    name: str
    num_objectives: int = 1
    calibration: Calibration | None = None  # None: the sample is yet to be read

    def score(self, row: Row) -> float | None:
        """None for a failed row. Only once there is a calibration."""
        assert self.calibration is not None
        return self.calibration.score(self.name, row)

    def values(self, row: Row) -> Values | None:
        """The score to maximise, and as the second objective the FLOPs to minimise."""
        score = self.score(row)
        return None if score is None else (score, float(row.flops))[: self.num_objectives]


class Recorder:
    """Takes rows in whatever order they come. Plain code: what it does with them is passed in.

    `write` hands rows on for writing, and may raise RunError or UsageError. `watch` hears of rows that were scored, and
    of the best score so far. `stop_reason` is set when the run should not go on.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Row]], None],
        sampler: Sampler,
        scorer: Scorer,
        searcher: str = "",
        watch: Callable[[Sequence[Row], float | None], None] = lambda rows, best: None,
        max_failure_share: float = 1.0,
    ) -> None:
        self._write, self.sampler, self.scorer, self.searcher, self._watch = write, sampler, scorer, searcher, watch
        self.max_failure_share = max_failure_share
        self.num_rows = 0
        self.best: float | None = None
        self._began: float | None = None  # time.perf_counter() when the first of the rows began to be read
        self.seconds = 0.0  # from then to the last of the rows
        self.errors: Counter[str] = Counter()
        self.stop_reason: str | None = None
        self._untold: list[tuple[Arch, Row]] = []  # rows that wait for the calibration
        self._earlier: list[tuple[Arch, Row]] = []  # likewise, of an earlier run

    def _best_of(self, rows: Sequence[Row]) -> float | None:
        return max((score for row in rows if (score := self.scorer.score(row)) is not None), default=None)

    def replay(self, earlier: Sequence[tuple[Arch, Row]]) -> None:
        """Tells the searcher of an earlier run's rows, as soon as they can be scored; none is proposed again."""
        for arch, _ in earlier:
            self.sampler.skip(arch)
        self._earlier = list(earlier)
        if self.scorer.calibration is not None:
            self._tell_earlier()

    def _tell_earlier(self) -> None:
        told, self._earlier = self._earlier, []
        for arch, row in told:
            self.sampler.tell(arch, self.scorer.values(row))
        self.best = self._best_of([row for _, row in told])

    def record(self, archs: Sequence[Arch], rows: Sequence[Row]) -> None:
        """On disk a moment later; the searcher hears of them now, or once the scale of scores is known."""
        now = time.perf_counter()
        self._began = now - sum(row.seconds for row in rows) if self._began is None else self._began
        self.seconds = now - self._began
        rows = [dataclasses.replace(row, searcher=self.searcher) for row in rows]
        try:
            self._write(rows)
        except (RunError, UsageError) as error:  # the disk takes no more, or a part to merge is damaged
            self.stop(str(error))
            return
        self.num_rows += len(rows)
        self.errors.update(row.error for row in rows if row.error)
        self._judge()
        self._untold.extend(zip(archs, rows, strict=True))
        if self.scorer.calibration is not None:
            self._tell()

    def stop(self, reason: str) -> None:
        """The run should not go on; the first reason counts."""
        self.stop_reason = self.stop_reason or reason

    def calibrate(self, calibration: Calibration) -> None:
        """From here on rows can be scored, and those that waited for it are."""
        self.scorer = dataclasses.replace(self.scorer, calibration=calibration)
        self._tell_earlier()
        self._tell()

    def _tell(self) -> None:
        told, self._untold = self._untold, []
        if not told:
            return
        for arch, row in told:
            self.sampler.tell(arch, self.scorer.values(row))
        rows = [row for _, row in told]
        self.best = max((best for best in (self.best, self._best_of(rows)) if best is not None), default=None)
        self._watch(rows, self.best)

    def _judge(self) -> None:
        failed = self.errors.total()
        if self.num_rows >= MIN_ROWS_TO_JUDGE and failed > self.max_failure_share * self.num_rows:
            reason, count = self.errors.most_common(1)[0]
            self.stop(
                f"{failed:,} of {self.num_rows:,} architectures failed, more than search.max_failure_share "
                f"{self.max_failure_share:g} allows; {count:,} with: {reason}"
            )
