"""What a file of weights holds. Its format is told by its content, and nothing of it is run.

Of a pickle, tensors and plain values are read. Whatever else it names (an argparse.Namespace beside the weights, a
numpy number, a whole module) becomes a `StandIn`: a class of ours that keeps nothing and does nothing. No class or
function that a file names is imported or called, but those few that PyTorch makes tensors with.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, first_line

RESAVE = "where it was made, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
AGAIN = "copy or download it again"
UNPACK = "unpack it, and give the file of weights that is in it"

# (how a file begins that holds no weights, what it is, what to do)
STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, which stands for the weights", "fetch them with `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", RESAVE),
    (b"\x93NUMPY", "a NumPy array", RESAVE),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
)
# (a member's ending, what a zip archive with such a member is, what to do); torch.save writes a zip archive, too
ARCHIVES: tuple[tuple[str, str, str], ...] = (
    ("/constants.pkl", "a TorchScript archive, which is a program", RESAVE),
    ("archive_format", "an exported program (torch.export)", RESAVE),
    ("serialized_exported_program.json", "an exported program (torch.export)", RESAVE),
    (".npy", "an archive of NumPy arrays", RESAVE),
)

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
TORCH_PICKLE = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch.save's older format begins with
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules, as pickles name them and as PyTorch does
OLD_PICKLES = 4  # of that format: the number, the version, the machine, and what was saved
SNIFF_BYTES = 1024


class StandIn:
    """Stands for an object of a class that a file names, under that class's name."""

    def __init__(self, *args: object) -> None:
        """Whatever its real constructor is given."""

    def __setstate__(self, state: object) -> None:
        """Whatever its real state is."""

    @classmethod
    def described(cls) -> str:
        """The name that the file gives."""
        return f"{cls.__module__}.{cls.__qualname__}"


def read_content(path: Location) -> Any:
    """What safetensors or torch.save wrote, tensors on the CPU.

    Raises UsageError that says what the file is instead, and what to do about it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or first_line(error)}") from None
    problem = describe_stranger(data)
    if problem:
        raise unreadable(path, problem)
    return _read_safetensors(path, data) if _is_safetensors(data) else _read_torch(path, data)


def unreadable(path: Location, problem: str) -> UsageError:
    """The line for a file that holds no weights that are read."""
    return UsageError(f"{path} cannot be read as weights: it {problem}")


def describe_stranger(data: bytes) -> str | None:
    """What a file's content is, and what to do, where it is in no format of weights; None where it is."""
    head = data[:SNIFF_BYTES].removeprefix(b"\xef\xbb\xbf")
    for begin, what, advice in STRANGERS:
        if head.startswith(begin):
            return f"is {what}; {advice}"
    if data.startswith(ZIP):
        return _describe_zip(data)
    if data.startswith(PICKLE):
        return None if TORCH_PICKLE in data[:64] else f"is a Python pickle that torch.save did not write; {RESAVE}"
    if _is_safetensors(data):
        return None
    return "is empty (0 bytes); " + AGAIN if not data else _describe_text(head) or _describe_rest(data)


def _describe_zip(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return f"is cut short or damaged (a zip archive without its end, {len(data):,} bytes); {AGAIN}"
    for ending, what, advice in ARCHIVES:
        if any(name.endswith(ending) for name in names):
            return f"is {what}; {advice}"
    if not any(name.endswith("data.pkl") for name in names):
        return f"is a zip archive with {names[0]} in it, not a file of weights; {UNPACK}"
    return None


def _describe_text(head: bytes) -> str | None:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return f"is a web page, as a login or an error page is, saved in the place of the weights; {AGAIN}"
    if all(byte >= 0x20 or byte in b"\t\r\n" for byte in head):
        begin = head[:40].decode(errors="replace").split("\n")[0].strip()
        return f"is text (it begins with {begin!r}), not weights; {AGAIN}"
    return None


def _describe_rest(data: bytes) -> str:
    if tarfile.is_tarfile(io.BytesIO(data)):
        return f"is a tar archive; {UNPACK}"
    return "is in no format that is read: safetensors, or what torch.save writes (.pt, .pth, .bin, .ckpt, .tar)"


def _is_safetensors(data: bytes) -> bool:
    """The length of a JSON header, and that header."""
    return len(data) > 8 and data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") < 2**32


def _read_safetensors(path: Location, data: bytes) -> Any:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a dtype that torch does not have
        raise unreadable(path, f"is safetensors, cut short or damaged ({first_line(error)}); {AGAIN}") from None


def _read_torch(path: Location, data: bytes) -> Any:
    try:
        return _load_torch(data, [])
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
    except Exception as error:  # of a damaged file, any
        raise unreadable(path, f"is damaged ({told(error)}); {AGAIN}") from None
    try:
        return _load_torch(data, stand_ins(data))
    except Exception:
        objects = f"Python objects that are not read (such as {named[1]})" if named else "what is not read"
        raise unreadable(path, f"holds {objects}; {RESAVE}") from None


def _load_torch(data: bytes, allowed: list[type]) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def told(error: Exception) -> str:
    """What an error says, in a line; advice to unpickle whatever a file holds is not passed on."""
    text = f"{type(error).__name__}: {first_line(error)}"
    return type(error).__name__ if "weights_only" in text else text


def stand_ins(data: bytes) -> list[type]:
    """A class of ours for each class or function that a torch file names; PyTorch prefers its own where it has one."""
    named = sorted({str(arg) for op, arg in _operations(data) if op == "GLOBAL"})
    parts = [module_and_name.partition(" ") for module_and_name in named]
    return [type(name, (StandIn,), {"__module__": OLD_NAMES.get(module, module)}) for module, _, name in parts]


def _operations(data: bytes) -> list[tuple[str, Any]]:
    """Of a torch file's pickles, by name and argument; none is carried out."""
    stream, num_pickles = io.BytesIO(data), OLD_PICKLES
    if data.startswith(ZIP):
        with zipfile.ZipFile(stream) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            stream, num_pickles = io.BytesIO(archive.read(inside)), 1
    return [(op.name, arg) for _ in range(num_pickles) for op, arg, _ in pickletools.genops(stream)]
