"""Between a searcher and what reads: proposals that are new and in budget go out, rows come back and are told."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from tvt_ray.errors import RunError, UsageError
from tvt_ray.progress import say
from tvt_ray.scoring.rows import Row
from tvt_ray.scoring.scores import Calibration
from tvt_ray.searchers.protocol import Algorithm, Values
from tvt_ray.vits import Arch
from tvt_ray.vits.budget import Limits

# Proposals in a row that are over budget or known before a sampler turns from its algorithm's last proposal and its
# neighbours to random draws, and from those to enumeration.
MAX_NEIGHBOURS = 50
MAX_RANDOM_REJECTIONS = 20_000
MAX_ENUMERATION = 2_000_000
MIN_ROWS_TO_JUDGE = 20  # before a share of failures says anything


class Sampler:
    """Asks an algorithm until it proposes what is admissible: in budget and never given out before.

    Where an algorithm keeps proposing what is not, mutations of its last proposal are tried, then random draws, and
    where those keep missing too, the rest of the space in its own order, so that every admissible architecture of a
    space is found in the end.
    """

    def __init__(self, algorithm: Algorithm, limits: Limits, seed: int) -> None:
        self.algorithm, self.space, self.limits = algorithm, limits.space, limits
        self.rng = random.Random(f"sampler/{seed}")
        self._seen: set[str] = set()
        self._last: Arch | None = None  # the latest proposal of this ask that was not admissible
        self._rest: Iterator[Arch] | None = None
        self.exhausted = False  # the last ask found nothing

    def skip(self, arch: Arch) -> None:
        """An earlier run read it, of which `tell` says more: it is not given out again."""
        self._seen.add(self.space.arch_id(arch))

    def ask(self) -> Arch | None:
        """A new architecture in budget; None when there are no more, or, in a space too large to enumerate, none that
        MAX_RANDOM_REJECTIONS draws would find.
        """
        self._last = None
        if self._rest is None:
            for propose, reject, tries in self._sources():
                found = self._first_admissible(itertools.islice(iter(propose, None), tries), reject)
                if found is not None:
                    return found
            self._rest = self.space.enumerate() if self.space.size() <= MAX_ENUMERATION else iter(())
        found = self._first_admissible(self._rest, _ignore)
        self.exhausted = found is None
        return found

    def _sources(self) -> Sequence[tuple[Callable[[], Arch | None], Callable[[Arch], None], int]]:
        patience = self.algorithm.patience
        own = (self.algorithm.propose, self._reject, MAX_RANDOM_REJECTIONS if patience is None else patience)
        if self.algorithm.reaches_all:
            return [own]
        draws = (lambda: self.space.sample(self.rng), _ignore, MAX_RANDOM_REJECTIONS)
        return [own, (self._neighbour, _ignore, MAX_NEIGHBOURS), draws]

    def _reject(self, arch: Arch) -> None:
        self._last = arch
        self.algorithm.reject(arch)

    def _neighbour(self) -> Arch | None:
        return None if self._last is None or self.space.size() < 2 else self.space.mutate(self._last, self.rng)

    def _first_admissible(self, archs: Iterator[Arch], reject: Callable[[Arch], None]) -> Arch | None:
        for arch in archs:
            arch_id = self.space.arch_id(arch)
            if arch_id not in self._seen and self.limits.admit(arch):
                self._seen.add(arch_id)
                return arch
            reject(arch)
        return None

    def tell(self, arch: Arch, values: Values | None) -> None:
        """What became of an architecture, given out or skipped; None: could not be scored."""
        self.algorithm.observe(arch, values)


def _ignore(arch: Arch) -> None:
    """Random draws and enumeration are not interested in rejections."""


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
    of the best score so far, and may raise RunError. `stop_reason` is set when the run should not go on, and
    `end_reason` when it has read enough before it has read all.
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
        self.end_reason: str | None = None
        self._devices: set[str] = set()
        self._untold: list[tuple[Arch, Row]] = []  # rows that wait for the calibration
        self._earlier: list[tuple[Arch, Row]] = []  # likewise, of an earlier run

    def replay(self, earlier: Sequence[tuple[Arch, Row]]) -> None:
        """Tells the searcher of an earlier run's rows, as soon as they can be scored; none is proposed again."""
        for arch, _ in earlier:
            self.sampler.skip(arch)
        self._devices |= _devices_of(row for _, row in earlier)
        self._earlier = list(earlier)
        self._tell()

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
        self._hear_of(_devices_of(rows))
        self.num_rows += len(rows)
        self.errors.update(row.error for row in rows if row.error)
        self._judge()
        self._untold.extend(zip(archs, rows, strict=True))
        self._tell()

    def _hear_of(self, devices: Set[str]) -> None:
        """Says once where a run's rows begin to come from another device too."""
        for device in sorted(devices - self._devices):
            before = ", ".join(sorted(self._devices))
            if before:
                say(f"rows are read on {device} from now on too, before on {before}: last digits of readings differ")
            self._devices.add(device)

    def stop(self, reason: str) -> None:
        """The run should not go on; the first reason counts."""
        self.stop_reason = self.stop_reason or reason

    def end(self, reason: str) -> None:
        """The run has read enough; the first reason counts."""
        self.end_reason = self.end_reason or reason

    def calibrate(self, calibration: Calibration) -> None:
        """From here on rows can be scored, and those that waited for it are."""
        self.scorer = dataclasses.replace(self.scorer, calibration=calibration)
        self._tell()

    def _tell(self) -> None:
        """What waits for a calibration, once there is one: first an earlier run's rows, of which `watch` hears none."""
        if self.scorer.calibration is None:
            return
        earlier, self._earlier, new, self._untold = self._earlier, [], self._untold, []
        for arch, row in [*earlier, *new]:
            self.sampler.tell(arch, self.scorer.values(row))
            score = self.scorer.score(row)
            self.best = max((best for best in (self.best, score) if best is not None), default=None)
        if new:
            try:
                self._watch([row for _, row in new], self.best)
            except RunError as error:
                self.stop(str(error))

    def _judge(self) -> None:
        failed = self.errors.total()
        if self.num_rows >= MIN_ROWS_TO_JUDGE and failed > self.max_failure_share * self.num_rows:
            reason, count = self.errors.most_common(1)[0]
            self.stop(
                f"{failed:,} of {self.num_rows:,} architectures failed, more than search.max_failure_share "
                f"{self.max_failure_share:g} allows; {count:,} with: {reason}"
            )


def _devices_of(rows: Iterable[Row]) -> set[str]:
    """Those that are known: rows of earlier versions, and of workers that died, have none."""
    return {row.device for row in rows if row.device}
