"""Sentences that several readers of data say: what was left out, counted, with an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tvt_ray.storage.locations import shown

NUM_LISTED = 8


def counted(count: int, what: str) -> str:
    """'1 image', '2,000 images': `what` in the singular."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def listing(names: Iterable[object], limit: int = NUM_LISTED) -> str:
    """Names with commas between; of many, the first and how many more there are."""
    texts = [shown(name) for name in names]
    more = f" and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def ignored_files(paths: Sequence[Path], root: Path, wanted: str) -> list[str]:
    """A note of files that are no `wanted`, by ending, with an example; none where there are none."""
    if not paths:
        return []
    endings = Counter(path.suffix.lower() or "no ending" for path in paths)
    kinds = ", ".join(f"{ending} {count:,}" for ending, count in sorted(endings.items(), key=lambda e: (-e[1], e[0])))
    are_no = f"is no {wanted}" if len(paths) == 1 else f"are no {wanted}s"
    example = within(root, paths[0])
    return [f"{counted(len(paths), 'file')} {are_no} and left out: {kinds} (such as {example})"]


def within(root: Path, path: Path) -> str:
    """A path as seen from the dataset's folder."""
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)
