"""`distill.init`: the weights of a larger ViT that students begin with, read, and held against who begins with them.

Found out before anything is trained. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from tvt_ray.distillation.learner import DistillTask
from tvt_ray.errors import UsageError
from tvt_ray.exports.folder import ARCH_FILE, WEIGHTS_FILE, load_student
from tvt_ray.progress import say
from tvt_ray.runs.config import RunConfig
from tvt_ray.scoring.rows import Row, arch_of
from tvt_ray.storage.locations import Location, as_location
from tvt_ray.teachers.checkpoints import INDEX, told
from tvt_ray.teachers.published import HUBS, check_hub, create_published
from tvt_ray.teachers.timm_cnn import PREFIX, check_name, is_published
from tvt_ray.teachers.weights import read_state
from tvt_ray.vits import Arch, Space, build_student
from tvt_ray.vits.starts import takes_sine
from tvt_ray.vits.stems import STAGES
from tvt_ray.vits.student import Student
from tvt_ray.vits.weight_selection import check_fits, check_stages, heads_of, select_weights
from tvt_ray.vits.weight_source import BLOCK, HEAD_DIM, Source, are_of_a_vit, parse_source

KEY = "distill.init"


def check_init_setting(config: RunConfig) -> None:
    """Before it is known who is trained: raises UsageError where `distill.init` is unreadable or of another kind."""
    check_start(config)
    if config.distill.init is not None:
        init = read_source(config.distill.init)
        with errors_name_the_setting():
            check_stages(init, _shapes(config.space, config.space.largest_arch(1)), f"space {config.space.name}")


def check_start(config: RunConfig) -> None:
    """Raises UsageError where students would inherit stages of their stem from a teacher that is another network, or
    where some of them cannot have the positions that are set.
    """
    widths = getattr(config.space, "embed_dim", None)
    if config.distill.positions == "sine" and (widths is None or not takes_sine(widths)):
        raise UsageError(
            f"distill.positions=sine is for spaces whose every embed_dim is a multiple of 4; {config.space.name} has "
            + (f"{', '.join(map(str, widths))}" if widths else "a map of positions")
        )
    backbone, stems = getattr(config.space, "backbone", None), getattr(config.space, "stem", ())
    if backbone is None or config.distill.stem == "drawn" or not any(map(STAGES.fullmatch, stems)):
        return
    if config.teacher.name.removeprefix(PREFIX).partition(".")[0] != backbone.partition(".")[0]:
        raise UsageError(
            f"stems of {backbone} cannot be inherited from the teacher {config.teacher.name}: take "
            f"teacher.name={PREFIX}{backbone}, or set distill.stem=drawn to begin with drawn weights"
        )


def check_init(init: Source | None, config: RunConfig, rows: Iterable[Row]) -> None:
    """Raises UsageError for the first of some architectures that is larger than the weights in any way."""
    if init is None:
        return
    for row in {row.shape: row for row in rows if row.status == "ok"}.values():
        student = _shapes(config.space, arch_of(row, config.space))
        with errors_name_the_setting():
            check_fits(init, student, row.arch_id)


def begin_as_they_can(init: Source | None, tasks: Mapping[str, DistillTask]) -> dict[str, DistillTask]:
    """The same trainings by name, where those of students that the weights do not fit begin with what is drawn.

    That is said of each student once: a rival may be of another kind, or larger.
    """
    if init is None:
        return dict(tasks)
    begun, told = dict[str, DistillTask](), set[str]()
    for name, task in tasks.items():
        begun[name] = task
        try:
            check_fits(init, _shapes(task.space, task.arch), task.arch_id)
        except UsageError as error:
            begun[name] = dataclasses.replace(task, settings=task.settings.with_(init=None))
            if task.arch_id not in told:
                say(f"init: {task.arch_id} begins with what is drawn: {error}")
            told.add(task.arch_id)
    return begun


def _shapes(space: Space, arch: Arch) -> Student:
    """A student without numbers."""
    with torch.device("meta"):
        return space.build(arch, 1)


def tell_of_init(init: Source | None, tasks: Iterable[DistillTask]) -> None:
    """Says of each student how much of it is filled, and from what."""
    if init is None:
        return
    for task in tasks:
        student = build_student(task.space, task.arch, task.num_classes, task.settings.seed)
        selected = select_weights(init, student, task.arch_id)
        say(f"init: {task.arch_id}: {selected.sentence()} from {init.describe()}")


@contextlib.contextmanager
def errors_name_the_setting() -> Iterator[None]:
    """Within the block, what is wrong with weights is said to be wrong with `distill.init`."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{KEY}: {error}") from None


def read_source(init: str) -> Source:
    """The weights that `init` names: timm:NAME, a student's folder, or a file of a timm ViT's state dict.

    Raises UsageError where there are none, or none of a ViT, and where timm's cannot be downloaded.
    """
    with errors_name_the_setting():
        return _from_timm(init) if init.startswith(PREFIX) else _from_path(as_location(init))


def _from_path(path: Location) -> Source:
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}; give timm:NAME, a file, or a student's folder")
    if path.name == WEIGHTS_FILE and (path.parent / ARCH_FILE).is_file():
        path = path.parent  # whose description says more
    if path.is_file() or list(path.glob(f"*{INDEX}")):
        source = parse_source(str(path), read_state(path, what=KEY, wanted=are_of_a_vit))
        say(f"{KEY}: {path} does not say what heads it has; they are taken to have {HEAD_DIM} channels each")
        return source
    loaded = load_student(path)  # it was trained here, and its heads and classes are known
    return parse_source(str(path), loaded.student.state_dict(), heads_of(loaded.student), loaded.class_names)


def _from_timm(init: str) -> Source:
    """A model of timm's with the weights that were published; its own classes are not the dataset's."""
    name = init.removeprefix(PREFIX)
    check_name(name)
    if not name.startswith(HUBS):
        _check_model(init, _create(name, pretrained=False, device="meta"))
    model = _from_hub(init, name) if name.startswith(HUBS) else create_published(name, num_classes=0, what=KEY)
    parts = model.named_modules()
    heads = {name.removesuffix(".attn"): part.num_heads for name, part in parts if hasattr(part, "num_heads")}
    return parse_source(init, model.state_dict(), heads)


def _from_hub(init: str, name: str) -> Any:
    check_hub(name)
    try:
        return _create(name, pretrained=True, device="cpu")
    except Exception as error:  # the hub client raises many kinds
        raise UsageError(
            f"the weights of {init} could not be downloaded ({told(error)}); "
            "give a local file, or download it where there is a network"
        ) from None


def _create(name: str, pretrained: bool, device: str) -> Any:
    import timm

    with torch.random.fork_rng(devices=[]), torch.device(device):
        return timm.create_model(name, pretrained=pretrained, num_classes=0)


def _check_model(init: str, model: Any) -> None:
    """Raises UsageError for a model that is no ViT, or that nobody published weights of: before it is downloaded."""
    if not any(BLOCK.fullmatch(key) for key in model.state_dict()):
        raise UsageError(f"{init} is no ViT; timm:vit_tiny_patch16_224 is one, and timm:pit_ti_224 a PiT")
    if not is_published(model):
        raise UsageError(f"timm has no pretrained weights of {init}; give a file, or another name")
