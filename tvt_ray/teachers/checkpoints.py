"""What a file of weights holds. Its format is told by its content, and nothing of it is run.

`torch.load(weights_only=True)` reads tensors and plain values. Whatever else a file names (an argparse.Namespace beside
the weights, a numpy number, a whole module) becomes a `StandIn`: a class of ours that keeps nothing and does nothing.
No class or function that a file names is imported or called, but those few that PyTorch makes tensors with.
`timm.models.load_state_dict` reads the same way, but refuses all such names save one, and goes by the file's ending.
"""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from tvt_ray.data.layout import pasted
from tvt_ray.errors import UsageError
from tvt_ray.storage.locations import Location, first_line, shown
from tvt_ray.strict import parse_json

RESAVE = "where it was made, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
AGAIN = "copy or download it again"
UNPACK = "unpack it, and give the file of weights that is in it"

# (how files begin that hold no weights, what they are, and what to do)
STRANGERS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"version https://git-lfs",), "a git-lfs pointer, which stands for the weights; fetch them with `git lfs pull`"),
    ((b"\x89HDF\r\n\x1a\n",), f"an HDF5 file, as Keras writes; {RESAVE}"),
    ((b"\x93NUMPY",), f"a NumPy array; {RESAVE}"),
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!"), f"a compressed archive; {UNPACK}"),
)
PROGRAMS = ("/constants.pkl", "archive_format", "serialized_exported_program.json")  # members' endings
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
TORCH_PICKLE = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch.save's older format begins with
SNIFF_BYTES = 1024
INDEX = ".index.json"  # how the names of indices end that say which file has which weight
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


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
    """What safetensors or torch.save wrote, tensors on the CPU: a file, the index of several, or a folder of them.

    Raises UsageError that says what the file is instead, and what to do about it.
    """
    if isinstance(path, Path) and path.is_dir():
        path = _in_folder(path)
    if path.name.endswith(INDEX):
        return _read_shards(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"teacher weights: there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or first_line(error)}") from None
    problem = describe_stranger(data)
    if problem:
        raise unreadable(path, problem)
    return _read_safetensors(path, data) if _is_safetensors(data) else _read_torch(path, data)


def _in_folder(folder: Path) -> Path:
    """The index in a folder, or the only file of weights."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    files = [name for name in names if name.endswith(INDEX)] or [name for name in names if name.endswith(ENDINGS)]
    if len(files) == 1:
        return folder / files[0]
    if any(name.endswith(".distcp") for name in names):
        convert = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {pasted(folder)} weights.pth"
        raise UsageError(f"{shown(folder)} is a distributed checkpoint; {convert} makes a file of it")
    raise UsageError(f"{shown(folder)} is a folder with {len(files) or 'no'} files of weights in it; name one")


def _read_shards(index: Location) -> Any:
    """What the files hold that an index of Hugging Face's names, each beside it. Raises UsageError."""
    try:
        names = parse_json(index.read_text())["weight_map"]
        files = sorted(set(names.values()))
        if not all(isinstance(name, str) and Path(name).name == name for name in files):
            raise ValueError("files beside it are meant")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(index, f"is no index of weights ({first_line(error)}); {AGAIN}") from None
    whole: dict[str, Any] = {}
    for name in files:
        shard = read_content(index.parent / name)
        whole |= shard if isinstance(shard, Mapping) else {}
    missing = [name for name in names if name not in whole]
    if missing:
        raise unreadable(index, f"names {missing[0]}, which {names[missing[0]]} lacks; {AGAIN}")
    return whole


def unreadable(path: Location, problem: str) -> UsageError:
    """The line for a file that holds no weights that are read."""
    return UsageError(f"{path} cannot be read as weights: it {problem}")


def describe_stranger(data: bytes) -> str | None:
    """What a file's content is, and what to do, where it is in no format of weights; None where it is."""
    head = data[:SNIFF_BYTES]
    for begins, what in STRANGERS:
        if head.startswith(begins):
            return f"is {what}"
    if head.startswith(ZIP):
        return _describe_zip(data)
    if head.startswith(PICKLE):
        return None if TORCH_PICKLE in head[:64] else f"is a Python pickle that torch.save did not write; {RESAVE}"
    if _is_safetensors(data):
        return None
    if all(byte >= 0x20 or byte in b"\t\r\n" for byte in head):  # a login or an error page, most often
        begin = head.decode(errors="replace").lstrip("\ufeff\r\n\t ")[:40].split("\n")[0].strip()
        return f"is text (it begins with {begin!r}), not weights; {AGAIN}" if data else f"is empty (0 bytes); {AGAIN}"
    if tarfile.is_tarfile(io.BytesIO(data)):
        return f"is a tar archive; {UNPACK}"
    return "is in no format that is read: safetensors, or what torch.save writes (.pt, .pth, .bin, .ckpt, .tar)"


def _describe_zip(data: bytes) -> str | None:
    """A zip archive is what torch.save writes since 2020."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):  # of what is damaged, each of them
        return f"is cut short or damaged (a zip archive without its end, {len(data):,} bytes); {AGAIN}"
    if any(name.endswith(PROGRAMS) for name in names):
        return f"is a program (TorchScript or torch.export); {RESAVE}"
    if not any(name.endswith("data.pkl") for name in names):
        return f"is a zip archive with {names[0] if names else 'nothing'} in it, not a file of weights; {UNPACK}"
    return None


def _is_safetensors(data: bytes) -> bool:
    """The length of a JSON header, and that header."""
    return len(data) > 8 and data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") < 2**32


def _read_safetensors(path: Location, data: bytes) -> Any:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a dtype that torch does not have
        raise unreadable(path, f"is safetensors, cut short or damaged ({first_line(error)}); {AGAIN}") from None


def _read_torch(path: Location, data: bytes) -> Any:
    """Read again with one more stand-in for each name that PyTorch refuses, until nothing or the same is refused."""
    names: list[str] = []
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([_stand_in(name) for name in names]):
                warnings.simplefilter("ignore")
                content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                break
        except Exception as error:  # of a damaged file, any
            refused = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
            if refused is None or refused[1] in names:
                raise unreadable(path, _describe_failure(error, names)) from None
            names.append(refused[1])
    if any(_is_larger_than_its_numbers(tensor) for tensor in _tensors_in(content)):
        raise unreadable(path, f"holds a tensor of more numbers than the file has; {AGAIN}")
    return content


def _tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """All, in whatever lists and mappings they are: a few bytes may say that one is of any size."""
    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)


def _is_larger_than_its_numbers(tensor: torch.Tensor) -> bool:
    """As one that repeats a number by a stride of 0 is: it grows when it is copied. Sparse ones are refused later."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _stand_in(name: str) -> type[StandIn]:
    """A class of ours for one that a file names. PyTorch leaves the module out where that is `builtins`."""
    module, _, last = name.rpartition(".")
    return type(last, (StandIn,), {"__module__": module or "builtins"})


def _describe_failure(error: Exception, names: Sequence[str]) -> str:
    if names:
        return f"holds Python objects that are not read ({', '.join(names)}); {RESAVE}"
    if isinstance(error, pickle.UnpicklingError):
        return f"holds what is not read; {RESAVE}"
    return f"is damaged ({told(error)}); {AGAIN}"


def told(error: Exception) -> str:
    """What an error says, in a line; advice to unpickle whatever a file holds is not passed on."""
    text = f"{type(error).__name__}: {first_line(error)}"
    return type(error).__name__ if "weights_only" in text else text
