"""A session: what the verbs of one call share. Each thing is made once, when it is first asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from tvt_ray.cluster.connection import check_address, connected, resolve_address
from tvt_ray.cluster.tasks import cluster_trainer
from tvt_ray.data.splits import Dataset
from tvt_ray.latency.profile import DeviceProfile
from tvt_ray.proxies import need_teacher
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.inputs import checked_limits, find_profile, load_data
from tvt_ray.runs.process import Stopwatch, end_without_ray, process_as_it_was
from tvt_ray.runs.run import Run
from tvt_ray.scoring.rows import Row
from tvt_ray.storage.locations import Location, as_location
from tvt_ray.storage.locks import FolderLock
from tvt_ray.storage.patience import check_folder, check_room
from tvt_ray.teachers.provide import get_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.teachers.training import Hits, Verdict, judge, teacher_hits
from tvt_ray.verbs.init import read_source
from tvt_ray.vits.budget import Limits
from tvt_ray.vits.weight_source import Source

# What a session makes once, and the sections of the config that it is made by.
MADE_BY = {
    "data": ("data", "space", "budget", "teacher", "teacher_training"),
    "identity": ("data", "probe"),
    "profile": ("space", "budget"),
    "limits": ("data", "space", "budget"),
    "teacher": ("data", "teacher", "teacher_training"),
    "verdict": ("data", "teacher", "teacher_training"),
    "teacher_hits": ("data", "teacher", "teacher_training"),
    "init": ("distill",),
}
Changes: TypeAlias = RunConfig | Mapping[str, Any] | None  # of a config: another one, or settings that change


class Session:
    """A run folder while a process works in it: config, lock, images, teacher, rows, and Ray.

    with Session.open(config, folder) as session:
        search(session)
        distill(session, top_k=2)
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        resume: bool,
        ray_address: str | None,
        opened: contextlib.ExitStack,
    ) -> None:
        self._config, self.folder, self.resume, self.ray_address = config, folder, resume, ray_address
        self.clock, self._opened = Stopwatch(), opened
        self._resume_command, self._on_ray, self._images_kept = "", False, False

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        config: RunConfig,
        folder: Location | str,
        *,
        resume: bool = False,
        ray_address: str | None = None,
        data: Dataset | None = None,
    ) -> Iterator[Session]:
        """What is opened in the block is closed at its end, and the process is left as it was.

        `resume`: what an earlier call began in the folder is gone on with. `ray_address`: of a cluster; None:
        RAY_ADDRESS, or Ray on this machine. `data`: the config's images, where they were loaded already. Raises
        UsageError for an address at which there is no cluster, and a folder that cannot be written to.
        """
        check_outside_world(as_location(folder), ray_address)
        with process_as_it_was(), contextlib.ExitStack() as opened:
            session = cls(config.resolved(), RunFolder(as_location(folder)), resume, ray_address, opened)
            if data is not None:
                session.data = data
            yield session

    @property
    def config(self) -> RunConfig:
        """By which verbs work. What another one would make otherwise is made anew when it is next asked for."""
        return self._config

    @config.setter
    def config(self, config: RunConfig) -> None:
        for name, sections in MADE_BY.items():
            if any(getattr(config, each) != getattr(self._config, each) for each in sections):
                vars(self).pop(name, None)
        self._images_kept &= "identity" in vars(self)
        self._config = config

    @cached_property
    def lock(self) -> FolderLock:
        """Keeps other drivers out of the folder until the session ends. Raises UsageError where one is in it."""
        return self._opened.enter_context(self.folder.lock())

    @cached_property
    def data(self) -> Dataset:
        """The images, each decoded once. Raises UsageError for whatever is wrong with them."""
        with self.clock("data"):
            return load_data(self.config, kept_in=self.folder.path)

    @cached_property
    def identity(self) -> DataIdentity:
        """What the images are, wherever they lie."""
        return DataIdentity.of(self.data, self.config.probe)

    @cached_property
    def profile(self) -> DeviceProfile | None:
        """By which latencies are predicted, where the budget limits them. Raises UsageError."""
        return find_profile(self.config, self.folder)

    @cached_property
    def limits(self) -> Limits:
        """The budget with all that it needs. Raises UsageError where no architecture meets it."""
        return checked_limits(self.config, self.data.num_classes, self.profile)

    @cached_property
    def teacher(self) -> Teacher:
        """The trained teacher; where there is none it is trained now, on a GPU of this machine or of the cluster."""
        data, config = self.data, self.config
        with self.clock("teacher"):
            train = cluster_trainer(self.ray_address, config.plugins, config.cluster.max_failures)
            return get_teacher(config.teacher, config.teacher_training, data, self.folder.path, train)[0]

    @property
    def reading_teacher(self) -> Teacher | None:
        """The teacher, where anything that the run reads compares with it."""
        return self.teacher if need_teacher(self.config.score.to_read) else None

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the teacher is worth following."""
        return judge(self.teacher, self.data)

    @cached_property
    def teacher_hits(self) -> Hits:
        """(test images,): whether the teacher names each right, at its own size."""
        return teacher_hits(self.teacher, self.data.test)

    @cached_property
    def init(self) -> Source | None:
        """The weights that `distill.init` names; None where it names none. Raises UsageError for unreadable ones."""
        return None if self.config.distill.init is None else read_source(self.config.distill.init)

    @cached_property
    def rows(self) -> list[Row]:
        """What was read of each architecture."""
        return self.folder.rows().read()

    def begin(self) -> None:
        """The folder becomes this run's, or goes on with it: locked, with config and images written down.

        Raises UsageError where it holds another run, or one of other images, or cannot be written.
        """
        _ = self.identity, self.profile  # what is wrong with them is found out before the folder is made
        self.folder.make()
        _ = self.lock
        self.folder.check(self.config, self.resume)  # another driver may have been here meanwhile
        self.keep_images(compare=self.resume)
        if self.profile is not None:
            self.profile.save(self.folder.latency_file)
        self.folder.claim(self.config)

    def keep_images(self, compare: bool = True) -> None:
        """Writes down which images the run is of, once. Raises UsageError where they are others than those before."""
        if self._images_kept:
            return
        if compare:
            self.folder.check_data(self.identity)
        self.folder.keep_data(self.identity)
        self._images_kept = True

    def join_ray(self, resume_command: str) -> None:
        """Connects to the cluster, or starts Ray, unless that was done; it stays until the session ends.

        `resume_command`: what goes on with the verb, which is printed should the cluster be lost. Raises UsageError and
        RunError as `connected` does.
        """
        self._resume_command = resume_command
        if not self._on_ray:
            lost = connected(self.ray_address, lambda reason: end_without_ray(reason, self._resume_command))
            self._opened.enter_context(lost)
            self._on_ray = True


def check_outside_world(folder: Location, ray_address: str | None) -> None:
    """Raises UsageError, within 15 seconds: a folder that is closed, a full disk, no cluster at an address."""
    check_folder(folder)
    check_room(folder)
    check_address(resolve_address(ray_address))


@contextlib.contextmanager
def session_of(
    run: Session | Run | str | Path, changes: Changes = None, resume: bool = False, ray_address: str | None = None
) -> Iterator[Session]:
    """A session as it is, but with `changes` made; else one of a run that is there, by its own settings with `changes`.

    Raises UsageError where there is no run, or settings are wrong.
    """
    if isinstance(run, Session):
        if changes is not None:
            run.config = changed(run.config, changes).resolved()
        yield run
        return
    loaded = run if isinstance(run, Run) else Run.load(run)
    config = changes if isinstance(changes, RunConfig) else changed(loaded.folder.config_for(changes or {}), changes)
    with Session.open(config, loaded.folder.path, resume=resume, ray_address=ray_address) as session:
        yield session


def changed(config: RunConfig, changes: Changes) -> RunConfig:
    """Another config, or this one with some settings changed. Raises UsageError."""
    if isinstance(changes, RunConfig):
        return changes
    return config.with_(changes) if changes else config
