"""Where to cut the teacher: what a linear head names right on what each stage makes of the images, pooled.

The best cut is where students begin, and the head there is their dullest rival: the same stages without a ViT on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tvt_ray.data.splits import Split, joined
from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import write_atomically
from tvt_ray.strict import parse_json
from tvt_ray.teachers.head import Features, choose_head, fast, features_of
from tvt_ray.training.pace import device_here
from tvt_ray.verbs.report import CUTS_FILE
from tvt_ray.verbs.session import Session
from tvt_ray.verbs.short import Likelihoods, pick
from tvt_ray.vits.budget import Limits
from tvt_ray.vits.stems import STAGES
from tvt_ray.vits.trunks import Trunk, trunk_facts


@dataclass(frozen=True)
class Cut:
    """The teacher's first stages, pooled, frozen, with a linear head. Accuracies in percent."""

    stem: str  # as a space names it
    params: int  # with the head
    cv_acc: float  # by cross-validation on all images that are no test images
    log_likelihood: float  # in the same
    test_acc: float
    test_hits: tuple[bool, ...]  # whether it names each test image right


def choose_cut(session: Session) -> tuple[Cut, ...]:
    """Compares the stems of the config's space, and leaves it the last one, unless another is surely better.

    Empty: it has one, or none of stages.
    Kept in the run folder, and found there where it was done before.
    """
    file, space = session.folder.path / CUTS_FILE, session.config.space
    if file.is_file():
        return tuple(Cut(**each) for each in parse_json(file.read_text()))
    stems = [stem for stem in getattr(space, "stem", ()) if STAGES.fullmatch(stem)]
    if session.config.budget.max_latency_ms is not None:  # a latency profile is of the whole space
        return ()
    if len(stems) < 2 or len(stems) < len(space.stem):  # type: ignore[attr-defined]
        return ()
    within = affordable_stems(session.limits, stems)
    heads = compare_cuts(session, stems)
    cuts = tuple(cut for cut, _ in heads)
    best = pick({cut: values for cut, values in reversed(heads) if cut.stem in within})
    data = session.data  # which another stem changes nothing of
    session.config = session.config.with_(space={"stem": [best.stem]})
    session.data = data
    write_atomically(file, json.dumps([asdict(cut) for cut in cuts], indent=1).encode())
    session.folder.claim(session.config)
    told = ", ".join(f"{cut.stem} {cut.cv_acc:.1f} %" for cut in cuts)
    say(f"cuts: by cross-validation a linear head on pooled stages reaches {told}; students begin with {best.stem}")
    return cuts


def affordable_stems(limits: Limits, stems: list[str]) -> list[str]:
    """Those that some architecture within the limits has. Raises UsageError where none does."""
    found = []
    for stem in stems:
        of_stem = Limits(limits.space.with_(stem=[stem]), limits.budget, limits.num_classes, limits.latency_ms)
        if any(map(of_stem.admit, of_stem.space.enumerate())):
            found.append(stem)
    if not found:
        raise UsageError(f"no architecture of this space meets {limits.budget}")
    return found


def compare_cuts(session: Session, stems: list[str]) -> list[tuple[Cut, Likelihoods]]:
    """Each stem's head, chosen by cross-validation on all images that are no test images, and tested once.

    With the likelihoods of their labels.
    """
    data, space = session.data, session.config.space
    backbone, size = space.backbone, space.image_size  # type: ignore[attr-defined]
    counts = {stem: int(stem.removeprefix("stage")) for stem in stems}
    trunk = Trunk(backbone, max(counts.values()))
    trunk.inherit(session.teacher.backbone.network)
    learned, tested = joined(data.train, data.val), data.test
    seen = [pooled_stages(trunk, split, size, counts) for split in (learned, tested)]
    cuts = []
    for stem in stems:
        head = choose_head(Features(seen[0][stem], {}, learned.labels), data.num_classes, session.config.seed)
        hits = head.logits(seen[1][stem]).argmax(1) == tested.labels
        params = trunk_facts(backbone, counts[stem]).params + head.weight.size + head.bias.size
        mean, accuracy = float(head.log_likelihoods.mean()), 100 * float(hits.mean())
        cut = Cut(stem, params, head.cv_acc, mean, accuracy, tuple(hits.tolist()))
        cuts.append((cut, head.log_likelihoods))
    return cuts


def pooled_stages(trunk: Trunk, split: Split, size: int, counts: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """The mean over its map of what each stage makes of a split's images, (N, C), by name."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            found[name] = output.mean((2, 3))

        return hook

    stages, device = trunk.stage_modules, device_here()
    hooks = [stages[count - 1].register_forward_hook(keep(name)) for name, count in counts.items()]
    trunk.to(device).eval()

    def see(images: Tensor) -> Tensor:
        trunk(images)
        return torch.cat([found[name].float() for name in counts], 1)

    features = features_of(fast(see, device), split, size)
    for hook in hooks:
        hook.remove()
    widths = np.cumsum([found[name].shape[1] for name in counts])[:-1]
    return dict(zip(counts, np.split(features, widths, axis=1), strict=True))
