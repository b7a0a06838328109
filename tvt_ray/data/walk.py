"""What lies in a folder as people keep them: hidden things passed over, links followed once, loops ended."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown

# What systems leave behind; names that begin with a dot are passed over too.
CLUTTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "__pycache__"}

# Formats that PIL names but decodes nowhere, or with other programs alone.
_UNREAD = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The endings that PIL reads, in lower case: .jpg, .png, .gif …"""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _UNREAD)


def is_image(path: Path) -> bool:
    """By its ending, in any case."""
    return path.suffix.lower() in image_suffixes()


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """(folders, files) in a folder by name, links among them, without hidden ones. Raises UsageError."""
    try:
        entries = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in CLUTTER)
        return [path for path in entries if path.is_dir()], [path for path in entries if not path.is_dir()]
    except OSError as error:
        raise UsageError(f"{shown(folder)} cannot be read: {error.strerror or first_line(error)}") from None


@dataclass
class Found:
    """What lies below a folder."""

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)  # files that are no images
    repeated: list[Path] = field(default_factory=list)  # folders, mostly links, that were walked under another name


def walk(folder: Path, root: Path | None = None) -> Found:
    """Files by folder and name, each folder of the disk once, whatever links lead to it.

    `root`: the dataset's folder, to which no link leads back. Raises UsageError for a folder that cannot be read.
    """
    found, seen = Found(), set[Path]()
    for place in {folder.resolve(), (root or folder).resolve()}:
        seen |= {place, *place.parents}
    _descend(folder, seen, found)
    for paths in (found.images, found.others):
        paths.sort(key=lambda path: (str(path.parent), path.name))
    return found


def _descend(folder: Path, seen: set[Path], found: Found) -> None:
    folders, files = listed(folder)
    for file in files:
        (found.images if is_image(file) else found.others).append(file)
    for below in sorted(folders, key=Path.is_symlink):  # what lies here, before what links lead to
        target = below.resolve()
        if target in seen:
            found.repeated.append(below)
        else:
            seen.add(target)
            _descend(below, seen, found)
