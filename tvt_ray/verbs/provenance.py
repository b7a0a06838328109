"""What a run says of its students: what each learned from, which of other images were among that, how it came about."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tvt_ray.data.datasets import dataset_name, load_dataset
from tvt_ray.data.layout import counted
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import CARVED, Dataset, Split
from tvt_ray.data.survey import content_hashes
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import Facts, Origin, StudentCard, public_name
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.folder import RunFolder
from tvt_ray.runs.identity import DataIdentity
from tvt_ray.runs.ownership import check_named, outside
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.scoring.ranking import Ranking
from tvt_ray.storage.locations import Location, as_location
from tvt_ray.strict import merged
from tvt_ray.teachers import check_settings
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.verbs.report import bodies_of
from tvt_ray.version import __version__

HOW = ("val_fraction", "test_fraction", "split_seed", "background")  # settings that serve for other images too
PACKAGES = ("torch", "timm", "ray", "numpy", "pillow")


@dataclass(frozen=True)
class TrainedOn:
    """The run that a student's folder lies in; `config` is None where it lies in none."""

    card: StudentCard
    run: RunFolder
    config: RunConfig | None = None
    identity: DataIdentity | None = None
    is_own: bool = True  # whether this user made the run: what a stranger's names is not gone to

    @classmethod
    def of(cls, student: Location, card: StudentCard) -> TrainedOn:
        """Raises UsageError for a run that cannot be read."""
        run = RunFolder(student.parent.parent)  # of RUN/distill/<arch_id>
        if not run.config_file.is_file():
            return cls(card, run)
        return cls(card, run, run.config(), DataIdentity.load(run.data_file), run.is_own)

    @property
    def teacher(self) -> TeacherSettings | None:
        """The teacher's network, without weights. None where there is no run, or it would have to be fetched for one
        that is a stranger's.
        """
        if self.config is None or (not self.is_own and "teacher.name" in outside(self.config)):
            return None
        return self.config.teacher.untrained()

    def settings(self, asked: Mapping[str, Any]) -> DataSettings:
        """The run's own data unless `asked`, settings of a config, name another, decoded and split as there.

        Raises UsageError where neither says which dataset it is, or the run is a stranger's and names a place.
        """
        wanted, is_named = RunConfig().with_(asked).data, names_a_dataset(asked)
        if self.config is None:
            if not is_named:
                raise UsageError("--dataset says what to evaluate on: the student's folder lies in no run that says it")
            stored: dict[str, Any] = {"background": self.card.background}
        else:
            if not self.is_own:
                check_named(self.run.path, self.config, asked, "data.")
            stored = self.config.data.model_dump(mode="json")
            if is_named and wanted.name != self.config.data.name:
                stored = {name: stored[name] for name in HOW}
        return RunConfig().with_({"data": stored}, asked).data

    def is_of(self, fingerprint: str) -> bool:
        """Whether a dataset has the very images, labels and splits, wherever they lie."""
        return self.identity is not None and self.identity.fingerprint == fingerprint

    def largest_size(self, fingerprint: str) -> int:
        """Pixels that images are decoded for: on its own data as in its run, which reported an accuracy."""
        size = self.card.space.image_size
        if self.teacher is None or not self.is_of(fingerprint):
            return size
        return max(size, check_settings(self.teacher).image_size)

    def card_with_origin(self) -> StudentCard:
        """The card; of a student that an earlier version trained, with what the run still says."""
        if self.card.origin is not None or self.config is None:
            return self.card
        arch_id = self.card.space.arch_id(self.card.arch)
        origins = origins_of(self.run, self.config, {arch_id: (arch_id, {})}, {})
        return dataclasses.replace(self.card, origin=origins[arch_id])

    def notes(self, data: Dataset, fingerprint: str, split: str, parts: Mapping[str, Split]) -> list[str]:
        """What training has seen of `parts`, the splits of `data` that are evaluated, called `split` together."""
        if self.is_of(fingerprint):
            return _of_own(split, self._learned_from)
        return [*self._overlap(parts), *_of_carved(data, split)]

    def _overlap(self, parts: Mapping[str, Split]) -> list[str]:
        trained = self._training_splits()
        if trained is None:
            where = self.config.data.name if self.config else self.card.results.get("dataset", "what it was trained on")
            return [f"whether images were trained on is not known: {where} is not at hand as it was then"]
        seen = {digest for part in trained for digest in content_hashes(part)}
        hashes = [digest for part in parts.values() for digest in content_hashes(part)]
        count = sum(digest in seen for digest in hashes)
        if not count:
            return []
        told = f"{count:,} of the {counted(len(hashes), 'image')}"
        return [f"{told} were trained on: the accuracy there says nothing of new images"]

    def _training_splits(self) -> list[Split] | None:
        """None where the run's data is not there any more, or has changed."""
        if self.config is None or (not self.is_own and outside(self.config)):
            return None
        try:
            data = load_dataset(self.config.data.with_(download=False))
        except UsageError:
            return None
        return [data.split(name) for name in self._learned_from] if self.is_of(data.fingerprint()) else None

    @property
    def _learned_from(self) -> tuple[str, ...]:
        """The splits that the student was trained on."""
        return ("train", "val") if self.card.results.get("learned_from") == "train and val" else ("train",)


def names_a_dataset(asked: Mapping[str, Any]) -> bool:
    """Whether settings of a config say which dataset."""
    return "name" in asked.get("data", {})


def asked_of(dataset: str | None, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a caller asks for, as settings of a config. Plugins are imported: a student may be of their space.

    Raises UsageError for what is no setting.
    """
    asked = merged(settings or {}, {} if dataset is None else {"data": {"name": dataset_name(dataset)}})
    RunConfig().with_(asked)
    return asked


def folder_of(student: TrainedStudent | Location | str) -> Location:
    """Where a student is."""
    return as_location(student.path if isinstance(student, TrainedStudent) else student)


def _of_own(split: str, learned_from: Collection[str]) -> list[str]:
    if split in learned_from:
        split = "train"
    said = {
        "train": "these images were trained on: the accuracy says nothing of new ones; --split test does",
        "all": "training images are among these: the accuracy says little of new ones; --split test does",
        "val": "these images chose among students and weights: the accuracy is a little high; see --split test",
    }
    return [said[split]] if split in said else []


def _of_carved(data: Dataset, split: str) -> list[str]:
    origin = data.origins.get(split, "")
    if not origin.startswith(CARVED):
        return []
    return [f"the split {split} is {origin}; --split all takes every image"]


def origins_of(
    folder: RunFolder, config: RunConfig, trainings: Mapping[str, tuple[str, Facts]], made_with: Facts
) -> dict[str, Origin]:
    """How students of a run came about, by name: `trainings` has the architecture and the recipe of each.

    The run is read once. `made_with`: as `versions` has it.
    """
    data, ranking, bodies = _data(folder), _ranking_of(folder, config), bodies_of(folder)
    search = {} if ranking is None else _search(folder, config, ranking)

    def found(arch_id: str) -> Facts:
        if ranking is None:
            return {}
        chosen = {"num_short": len(bodies)} if bodies and bodies[0] == arch_id else {}
        return {**search, "place": _place(ranking, arch_id), **chosen}

    return {name: Origin(data, found(arch_id), recipe, made_with) for name, (arch_id, recipe) in trainings.items()}


def versions() -> Facts:
    """The versions of what trains here, now."""
    found = {"tvt_ray": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]
    return found


def _ranking_of(folder: RunFolder, config: RunConfig) -> Ranking | None:
    """What the run chooses by; None where it has no rows that it ranks."""
    try:
        rows = folder.rows().read()
        return folder.ranking(config.score, rows) if rows else None
    except UsageError:
        return None


def _data(folder: RunFolder) -> Facts:
    identity = DataIdentity.load(folder.data_file)
    if identity is None:
        return {}
    return {"name": public_name(identity.dataset), "fingerprint": identity.fingerprint, **identity.num_images}


def _place(ranking: Ranking, arch_id: str) -> int | None:
    """Of the architecture's shape in the ranking, from 1; None where the run never read it."""
    shape = next((each.row.shape for each in ranking.scored if each.row.arch_id == arch_id), None)
    places = {each.row.shape: place for place, each in enumerate(ranking.entries, 1)}
    return None if shape is None else places[shape]


def _search(folder: RunFolder, config: RunConfig, ranking: Ranking) -> Facts:
    return {
        "space": config.space.name,
        "searcher": config.search.searcher,
        "score": ranking.by,
        "num_scored": len(ranking.scored),
        "num_shapes": ranking.num_shapes,
        "num_measured": len({each.arch_id for each in folder.measurements().read()}),
    }
