"""Export: a trained student as a file that others run, checked against the student before it is kept."""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tvt_ray.data.datasets import check_outside, load_dataset
from tvt_ray.data.splits import Dataset
from tvt_ray.errors import RunError, UsageError
from tvt_ray.exports import EXPORTS, describe_formats
from tvt_ray.exports.folder import DistilledStudent, load_student
from tvt_ray.exports.formats import (
    INT8_FILE,
    ONNX_FILE,
    TOLERANCE,
    Computes,
    Format,
    Wish,
    computes,
    drawn,
    hits_of,
    largest_difference,
    some_of,
)
from tvt_ray.exports.graphs import CALIBRATION_IMAGES
from tvt_ray.exports.model_card import CARD_FILE, model_card, with_section
from tvt_ray.latency.measure import STUDENT_S, Bench, in_rounds
from tvt_ray.latency.profile import this_device
from tvt_ray.progress import say
from tvt_ray.quality.comparison import estimate
from tvt_ray.quality.evaluation import ClassMatch, match_classes
from tvt_ray.quality.statistics import Interval
from tvt_ray.runs.process import process_as_it_was
from tvt_ray.runs.run import TrainedStudent
from tvt_ray.storage.locations import Location, as_location, check_writable, write_atomically
from tvt_ray.teachers import build_teacher
from tvt_ray.teachers.teacher import Teacher
from tvt_ray.verbs.provenance import TrainedOn, asked_of, folder_of, names_a_dataset

FLOAT_BYTES = 4


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, beside the student it computes."""

    format: str
    path: str
    bytes: int
    int8: bool
    max_abs_diff: float  # of logits, on the images that it was checked on
    latency_ms: float  # for one image
    val_acc: float | None  # percent; None where it was not asked for (without int8)
    lost: float | None = None  # of int8: points of test accuracy below the file of 32 bits, and
    lost_ci95: Interval | None = None  # their interval over other images of the kind


@dataclass(frozen=True)
class InTorch:
    """The student or its teacher, as PyTorch runs it."""

    name: str
    params: int
    bytes: int  # of its parameters
    latency_ms: float  # for one image


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote: what `export --json` prints."""

    files: tuple[ExportedFile, ...]
    student: InTorch
    teacher: InTorch | None  # None where nothing says which it was
    card: str  # README.md
    checked_on: str  # the images
    device: str  # that times are of
    threads: int
    notes: tuple[str, ...]  # what could not be compared, and why


def export(
    student: TrainedStudent | Location | str,
    format: str = "onnx",  # noqa: A002 (as the command line has it)
    *,
    int8: bool = False,
    pixels: bool = False,
    out: Location | str | None = None,
    dataset: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ExportSummary:
    """Writes a student as onnx, pt2 or timm into `out`, by default its own folder, with its model card.

    `int8`: a second ONNX file, of 8-bit weights and activations, calibrated on training images. `pixels`: the ONNX file
    takes 8-bit pixels. Every file is compared with the student at one and at seven images, which come from `dataset`,
    named as in `evaluate`, else from that of the run that the student's folder lies in, else are noise. Raises
    UsageError for what is wrong beforehand, int8 without images among it, and RunError where a file computes something
    else, which is then not kept.
    """
    form, wish, path = _format_of(format), Wish(int8=int8, pixels=pixels), folder_of(student)
    asked = asked_of(dataset, settings)
    loaded = load_student(path)
    form.check(loaded, wish)
    out = path if out is None else as_location(out)
    _check_out(out)
    subject = _Subject.of(path, loaded, asked)
    if subject.data:
        check_outside(out, subject.data.name)
    wish = dataclasses.replace(wish, calibration=subject.calibration() if int8 else None)
    for note in subject.notes:
        say(f"note: {note}")
    with process_as_it_was(), tempfile.TemporaryDirectory() as folder:
        written = {each: Path(folder) / each for each in form.write(Path(folder), loaded, wish)}
        files = {each: form.load(path) for each, path in written.items()}
        sizes = {each: path.stat().st_size for each, path in written.items()}
        found = subject.compare(format, files, wish, out, sizes)
        for file in sorted(Path(folder).iterdir()):
            write_atomically(out / file.name, file.read_bytes())
    subject.write_card(out, found)
    return found


def _format_of(name: str) -> Format:
    form = EXPORTS[name].on_demand if name in EXPORTS else None
    if form is None:
        raise UsageError(f"unknown format {name!r}; choices: {', '.join(describe_formats())}")
    return form


def _check_out(out: Location) -> None:
    if out.is_file():
        raise UsageError(f"--out is a folder; {out} is a file")
    if isinstance(out, Path):
        check_writable(out / CARD_FILE)


def _check_difference(file: str, difference: float) -> None:
    """An int8 file is another network, but gives numbers. Raises RunError."""
    allowed = math.inf if file == INT8_FILE else TOLERANCE
    if not (math.isfinite(difference) and difference <= allowed):
        raise RunError(
            f"{file} does not compute what the student does: logits differ by up to {difference:.2g}, and "
            f"{TOLERANCE:g} is allowed; it was not kept"
        )


@dataclass(frozen=True)
class _Subject:
    """Who is exported, and what it is compared on and with."""

    path: Location
    student: DistilledStudent
    trained_on: TrainedOn
    data: Dataset | None
    match: ClassMatch
    notes: tuple[str, ...]

    @classmethod
    def of(cls, path: Location, student: DistilledStudent, asked: Mapping[str, Any]) -> _Subject:
        """Raises UsageError for a dataset that was named and cannot be read, or has classes that it does not know."""
        trained_on = TrainedOn.of(path, student.card)
        data, notes = _dataset(trained_on, asked)
        match = match_classes(student.class_names, data.class_names) if data else ClassMatch(())
        if trained_on.config is None:
            notes += ("the student's folder lies in no run: there is no teacher to compare with",)
        return cls(path, student, trained_on, data, match, (*notes, *match.notes))

    def compare(
        self, name: str, files: Mapping[str, Computes], wish: Wish, out: Location, sizes: Mapping[str, int]
    ) -> ExportSummary:
        """`sizes`: bytes of each file. Raises RunError where a file that is to be the student is not."""
        size = self.student.image_size
        pixels = some_of(self.data.val, size) if self.data else drawn(size)
        differences = {each: largest_difference(file, self.student, pixels) for each, file in files.items()}
        for each, difference in differences.items():
            _check_difference(each, difference)
        hits = self._hits(files, "val") if wish.int8 else {}
        costs = {}
        if wish.int8:  # on test images, since students may have learned from those that validate
            tested = self._hits(files, "test")
            costs[INT8_FILE] = estimate((tested[ONNX_FILE].astype(float) - tested[INT8_FILE])[None])
        teacher = self._teacher()
        times = _latencies(files, [self.student, *([teacher] if teacher else [])], pixels[:1])
        listed = tuple(
            ExportedFile(
                name,
                str(out / each),
                sizes[each],
                each == INT8_FILE,
                difference,
                time,
                100 * float(hits[each].mean()) if each in hits else None,
                costs[each].value if each in costs else None,
                costs[each].ci95 if each in costs else None,
            )
            for (each, difference), time in zip(differences.items(), times, strict=False)
        )
        ours, *theirs = times[len(files) :]
        return ExportSummary(
            files=listed,
            student=_in_torch(self.student.card.arch_id, self.student, ours),
            teacher=_in_torch(teacher.name, teacher, theirs[0]) if teacher else None,
            card=str(out / CARD_FILE),
            checked_on=f"{len(pixels)} images that validate, of {self.data.name}" if self.data else "noise",
            device=str(this_device("cpu")),
            threads=torch.get_num_threads(),
            notes=self.notes,
        )

    def calibration(self) -> torch.Tensor:
        """Training images for int8. Raises UsageError where there are none."""
        if self.data is None:
            raise UsageError(
                f"--int8 is calibrated on training images, and {self.notes[0].partition(':')[0]}; --dataset names them"
            )
        return some_of(self.data.train, self.student.image_size, min(len(self.data.train), CALIBRATION_IMAGES))

    def _hits(self, files: Mapping[str, Computes], name: str) -> dict[str, NDArray[np.bool_]]:
        """Which images of a split are named right, by file."""
        assert self.data is not None  # else int8 was refused
        split, size = self.data.split(name), self.student.image_size
        return {name: hits_of(file, split, size, self.match) for name, file in files.items()}

    def _teacher(self) -> Teacher | None:
        """With any weights: how long it takes does not depend on them. None where it is not known."""
        settings = self.trained_on.teacher
        return None if settings is None else build_teacher(settings, len(self.student.class_names)).freeze()

    def write_card(self, out: Location, found: ExportSummary) -> None:
        """README.md. One that is there is kept, since people complete it; elsewhere goes a copy of the student's.

        What int8 costs is written into it, in a section of its own that later exports replace.
        """
        there, own = out / CARD_FILE, self.path / CARD_FILE
        kept = next((each.read_bytes() for each in (there, own) if each.is_file()), None)
        card = model_card(self.trained_on.card_with_origin()) if kept is None else kept.decode(errors="replace")
        small = next((each for each in found.files if each.int8), None)
        if small is not None:
            card = with_section(card, "8 bits", _int8_text(small, found, len(self.data.test) if self.data else 0))
        if small is not None or not there.is_file():
            write_atomically(there, card.encode())


def _int8_text(small: ExportedFile, found: ExportSummary, num_images: int) -> str:
    """What the card says of the smaller file."""
    whole = next(each for each in found.files if not each.int8)
    said = f"`{INT8_FILE}` has weights and activations of 8 bits: {small.bytes:,} bytes instead of {whole.bytes:,}."
    said += f" One image takes {small.latency_ms:.2f} ms instead of {whole.latency_ms:.2f} ({found.device}, "
    said += f"{found.threads} threads)."
    if small.lost is None or small.lost_ci95 is None:
        return said
    low, high = small.lost_ci95
    fewer = f"{small.lost:.2f} points fewer right (95 % interval {low:.2f} to {high:.2f})"
    return f"{said} Of {num_images:,} test images it names {fewer}."


def _dataset(trained_on: TrainedOn, asked: Mapping[str, Any]) -> tuple[Dataset | None, tuple[str, ...]]:
    """What a file is compared on, and why there is nothing."""
    if names_a_dataset(asked):
        return load_dataset(trained_on.settings(asked)), ()
    missing = "the files were compared with the student on noise; --dataset gives images"
    if trained_on.config is None:
        return None, (f"the student's folder lies in no run that says its images: {missing}",)
    try:
        settings = trained_on.settings(asked).with_(download=False)
        return load_dataset(settings), ()
    except UsageError as error:
        return None, (f"the run's images are not at hand ({error}): {missing}",)


def _latencies(
    files: Mapping[str, Computes], modules: Sequence[DistilledStudent | Teacher], pixels: torch.Tensor
) -> list[float]:
    """Milliseconds for one image: of the files, then of the modules, with as many threads each."""
    bench = Bench("cpu", torch.get_num_threads(), len(pixels))
    runs = [functools.partial(file.logits, file.prepare(pixels)) for file in files.values()]
    for module in modules:
        images = computes(module).prepare(pixels)
        size = module.image_size
        if size != images.shape[-1]:  # a teacher is timed on images of its own size
            images = torch.zeros(1, 3, size, size)
        runs.append(functools.partial(module, images))
    return in_rounds([functools.partial(bench.median_ms, run, STUDENT_S) for run in runs], lambda: None)


def _in_torch(name: str, module: nn.Module, latency_ms: float) -> InTorch:
    params = sum(parameter.numel() for parameter in module.parameters())
    return InTorch(name, params, FLOAT_BYTES * params, latency_ms)
