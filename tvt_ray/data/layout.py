"""How people lay out datasets: what lies in a folder, which split a name means, and what is said of the rest."""

from __future__ import annotations

import difflib
import functools
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tvt_ray.data.pixels import formats
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import first_line, shown

# What systems leave behind; names that begin with a dot are passed over too.
CLUTTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "__pycache__"}

SPLITS = ("train", "val", "test")

# As people call them, in any case.
WORDS = {
    "train": ("train", "training", "trainset", "trainval"),
    "val": ("val", "valid", "validation", "dev", "valset", "devset"),
    "test": ("test", "testing", "eval", "testset", "holdout"),
}
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
SHARD = re.compile(r"[-_.](\d+)[-_.]of[-_.](\d+)")  # which and of how many: train-00000-of-00012-3f2a…
NUM_LISTED = 8  # names in a sentence


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The endings of what is read, in lower case: .jpg, .png, .gif …"""
    read = (*formats(), "MPO")
    known = Image.registered_extensions()
    # A file of several JPEGs (MPO: stereo, or a phone's with its depth) is opened as the first of them.
    return frozenset(suffix for suffix, kind in known.items() if kind in read)


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


def split_of(name: str) -> str | None:
    """train, val or test; None for a name that says none of them, or two.

    The name is one of `WORDS`, or begins or ends with one and anything but a letter between: Train, my_train,
    Test_images, images-val, val2017, train-00000-of-00012. A file's name comes without its ending.
    """
    word = word_of(name)
    return None if word is None else _SPLIT_OF[word]


def word_of(name: str) -> str | None:
    """The word that says it, as in `WORDS`."""
    letters = [part for part in re.split(r"[\W\d_]+", SHARD.split(name)[0].lower()) if part]
    words = [word for word in dict.fromkeys(letters[:1] + letters[-1:]) if word in _SPLIT_OF]
    return words[0] if len({_SPLIT_OF[word] for word in words}) == 1 else None


def counted(count: int, what: str) -> str:
    """'1 image', '2,000 images': `what` in the singular."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def listing(names: Iterable[object], limit: int = NUM_LISTED) -> str:
    """Names with commas between; of many, the first and how many more there are."""
    texts = [shown(name) for name in names]
    more = f" and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


# Endings of files that hold many images, and what makes class folders or Parquet of one.
_AS_FILES = "write its images as files, or as Parquet with the columns image and label"
_UNPACK = {
    ".zip": "unzip {file} -d {folder}",
    **dict.fromkeys((".tar", ".tgz", ".gz", ".bz2", ".xz"), "tar -xf {file}"),
    ".7z": "7z x {file}",
    ".rar": "unrar x {file}",
    ".arrow": 'python -c "import sys, datasets; '
    "datasets.Dataset.from_file(sys.argv[1]).to_parquet('train.parquet')\" {file}",
    ".npz": 'python -c "import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq; a = np.load(sys.argv[1]); '
    "[pq.write_table(pa.table({{'image': [x.tolist() for x in a[s + '_images']], 'label': a[s + '_labels'].ravel()}}), "
    "s + '.parquet') for s in ('train', 'val', 'test')]\" {file}",
    **dict.fromkeys((".tfrecord", ".mdb", ".h5", ".hdf5"), _AS_FILES),
    ".pkl": "it is not opened, since opening it can run code; write its images as files, or as Parquet",
}


def how_to_unpack(paths: Sequence[Path]) -> str:
    """The end of a sentence that names the first file which holds images packed, and what unpacks it; else nothing.

    Names stand in commands as a shell takes them whole: they are a stranger's.
    """
    for path in paths:
        ending = next((e for e in reversed(path.suffixes) if e.lower().partition("-")[0] in _UNPACK), "")
        how = "write them as files, or as Parquet" if "ubyte" in path.name else None
        if ending and how is None:
            names = {"file": pasted(path), "folder": pasted(path.with_suffix(""))}
            how = _UNPACK[ending.lower().partition("-")[0]].format(**names)
        if how is not None:
            return f"; {shown(path.name)} holds images packed: {how}"
    return ""


# Endings of images that are not read as they are -> what has them read.
_READERS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pip install pillow-heif has them read"),
    **dict.fromkeys((".avif", ".avifs"), "a newer Pillow reads them"),
    ".jxl": "write them as PNG",
    ".svg": "they are drawings: write them as PNG",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"), "raw photos: write them as JPEG"),
    **dict.fromkeys((".dcm", ".dicom", ".nii", ".mha", ".nrrd"), "medical volumes: write their slices as PNG"),
    **dict.fromkeys((".svs", ".ndpi", ".mrxs", ".scn"), "whole slides: write their tiles as PNG"),
    ".psd": "write them as PNG",
    ".eps": "they are programs, which are not run: write them as PNG",
    ".exr": "write them as TIFF",
}


def unread(paths: Iterable[Path]) -> list[Path]:
    """Those that are images by their endings, of kinds that are not read here."""
    return [path for path in paths if path.suffix.lower() in _READERS and not is_image(path)]


def how_to_read(paths: Sequence[Path]) -> str:
    """The end of a sentence: how many images of which kinds are not read, and what has them read; else nothing."""
    endings = Counter(path.suffix.lower() for path in paths)
    return "".join(f"; {count:,} {ending} ({_READERS[ending]})" for ending, count in endings.most_common())


def not_there(path: Path, text: object) -> UsageError:
    """The line for a path where there is nothing, as it was typed, with names that are there and like it."""
    full = path.expanduser().absolute()
    there = next(parent for parent in full.parents if parent.is_dir())
    close = difflib.get_close_matches(full.relative_to(there).parts[0], [each.name for each in there.iterdir()], 3)
    return UsageError(f"there is no {shown(text)}{f'; {shown(there)} has {listing(close)}' if close else ''}")


def pasted(path: Path) -> str:
    """A path in a command that is offered for pasting."""
    return shlex.quote(shown(path))


def ignored_files(paths: Sequence[Path], root: Path, wanted: str) -> list[str]:
    """Notes of files that are no `wanted`, by ending, with an example, and of images of kinds that are not read."""
    lost = unread(paths)
    notes, gone = _lost_images(lost, root) if lost else [], set(lost)
    paths = [path for path in paths if path not in gone]
    if not paths:
        return notes
    endings = Counter(path.suffix.lower() or "no ending" for path in paths)
    kinds = ", ".join(f"{ending} {count:,}" for ending, count in sorted(endings.items(), key=lambda e: (-e[1], e[0])))
    are_no = f"is no {wanted}" if len(paths) == 1 else f"are no {wanted}s"
    example = within(root, paths[0])
    return [*notes, f"{counted(len(paths), 'file')} {are_no} and left out: {kinds} (such as {example})"]


def _lost_images(paths: Sequence[Path], root: Path) -> list[str]:
    """A note of images that are not read, with the share of each folder: a class may lose most of its own."""
    folders = Counter(path.parent for path in paths)
    left = {folder: sum(is_image(path) for path in listed(folder)[1]) for folder in folders}
    shares = [
        f"{count:,} of {count + left[folder]:,} in {within(root, folder)}" for folder, count in folders.most_common()
    ]
    return [f"{counted(len(paths), 'image')} left out, {listing(shares)}{how_to_read(paths)}"]


def within(root: Path, path: Path) -> str:
    """A path as seen from the dataset's folder."""
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)
