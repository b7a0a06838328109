"""What a file is told by its content, and that nothing of it is run: real files of every kind."""

import argparse
import collections
import gzip
import io
import os
import pathlib
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from tvt_ray.errors import UsageError
from tvt_ray.teachers.checkpoints import StandIn, read_content

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
OLDER = pytest.mark.parametrize("older", [False, True], ids=["zip", "older format"])


def saved(content, older=False, **options):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not older, **options)
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("best.pth"))
    return file.getvalue()


def scripted():
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is a newer way, and old files
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    return file.getvalue()


def of_numpy(save_arrays):
    file = io.BytesIO()
    save_arrays(file, np.ones(3))
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    def read_bytes(data, name="t.pth"):
        (tmp_path / name).write_bytes(data)
        return read_content(tmp_path / name)

    return read_bytes


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", ["t.safetensors", "t.pt", "t.pth", "t.bin", "t.ckpt", "t.pth.tar", "weights"])
@pytest.mark.parametrize("data", [save(STATE), saved(STATE), saved(STATE, older=True)], ids=["safe", "zip", "older"])
def test_a_format_is_told_by_content_whatever_the_file_is_called(read, name, data):
    assert same(read(data, name), STATE)


@pytest.mark.parametrize(
    ("data", "what", "advice"),
    [
        (b"", "is empty (0 bytes)", "copy or download it again"),
        (b"\n<!DOCTYPE html>\n<title>", "is text (it begins with '<!DOCTYPE html>')", "download it"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<Error>", "is text (it begins with \"<?xml version='1.0'?>\")", "again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "is a git-lfs pointer", "git lfs pull"),
        (b'{"error": "gone"}', 'is text (it begins with \'{"error": "gone"}\')', "download it again"),
        (b"404: Not Found\nsee the logs", "is text (it begins with '404: Not Found')", "download it again"),
        (scripted(), "is a program (TorchScript", "torch.save(model.state_dict()"),
        (zipped(**{"net/archive_format": "pt2"}), "is a program (TorchScript or", "torch.save(model"),
        (of_numpy(np.savez), "is a zip archive with arr_0.npy in it, not a file of weights", "unpack it"),
        (of_numpy(np.save), "is a NumPy array", "torch.save(model.state_dict()"),
        (zipped(**{"run/best.pth": saved(STATE)}), "is a zip archive with run/best.pth in it", "unpack it"),
        (tarred(), "is a tar archive", "unpack it"),
        (gzip.compress(saved(STATE)), "is a compressed archive", "unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(8), "is an HDF5 file, as Keras writes", "torch.save(model.state_dict()"),
        (pickle.dumps({"weight": [1.0]}), "is a Python pickle that torch.save did not write", "torch.save(model"),
        (saved(STATE)[:-30], "is cut short or damaged (a zip archive without its end", "download it again"),
        (saved(STATE, older=True)[:-8], "is damaged (RuntimeError: unexpected EOF", "download it again"),
        (saved(STATE, older=True)[:150], "is damaged (", "download it again"),
        (save(STATE)[:-4], "is safetensors, cut short or damaged (", "download it again"),
        (save(STATE)[:60], "is safetensors, cut short or damaged (", "download it again"),
        (bytes(range(256)) * 8, "is in no format that is read: safetensors, or what torch.save writes (.pt, ", ".tar)"),
        (saved({"model": STATE}, pickle_protocol=4), "holds what is not read", "torch.save(model.state_dict()"),
    ],
)
def test_a_file_of_something_else_is_one_line_that_says_what_it_is_and_what_to_do(read, tmp_path, data, what, advice):
    with pytest.raises(UsageError) as error:
        read(data)
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 't.pth'} cannot be read as weights: it {what}")
    assert advice in line
    assert "\n" not in line
    assert "weights_only" not in line


@OLDER
def test_what_stands_beside_the_weights_is_read_as_stand_ins(read, older):
    args = argparse.Namespace(lr=np.float64(0.1), out=pathlib.Path("runs"), activation=nn.functional.relu)
    content = read(saved({"args": args, "epoch": 3, "best": np.float64(93), "model": STATE}, older))
    assert same(content["model"], STATE)
    assert content["epoch"] == 3
    assert isinstance(content["args"], StandIn)
    assert vars(content["args"]) == {}
    assert content["args"].described() == "argparse.Namespace"


class Calls:
    """As an attacker writes it: unpickling calls `function` with `argument`."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@OLDER
def test_nothing_that_a_file_asks_to_be_called_is_called(read, older, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = read(saved({"args": Calls(eval, "open('called', 'w')"), "state_dict": STATE}, older))
    assert same(content["state_dict"], STATE)
    with pytest.raises(UsageError, match=r"holds Python objects that are not read \(\w+\.system\)"):
        read(saved({"args": Calls(os.system, "touch called"), "state_dict": STATE}, older))
    assert not (tmp_path / "called").exists()


@OLDER
def test_objects_that_have_no_stand_in_are_named(read, older):
    with pytest.raises(UsageError, match=r"that are not read \(collections\.defaultdict, list\); where it"):
        read(saved({"args": collections.defaultdict(list, a=[1]), "model": STATE}, older))


def test_a_whole_module_of_the_older_format_is_named(read):
    with pytest.raises(UsageError, match=r"not read \(torch\.nn\.modules\.linear\.Linear\); where it was made"):
        read(saved({"model": nn.Linear(2, 2)}, older=True))


def test_what_is_allowed_to_others_is_as_before(read):
    before = set(torch.serialization.get_safe_globals())
    read(saved({"args": argparse.Namespace(), "model": STATE}))
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*gone\.pth"):
        read_content(tmp_path / "gone.pth")


def test_a_tensor_that_is_said_to_be_larger_than_the_file_is_refused(read):
    """1.5 kB that ask for 40 TB once they are copied."""
    huge = torch.zeros(1).expand(10_000_000, 1_000_000)
    data = saved({"state_dict": [{"weight": huge}]})
    assert len(data) < 10_000
    with pytest.raises(UsageError, match="holds a tensor of more numbers than the file has"):
        read(data)
    part = torch.arange(10.0)[2:5]  # of a larger storage, as EMA and tied weights are
    assert torch.equal(read(saved({"weight": part, "again": part}))["again"], part)
