"""Weights to start from: a checkpoint of this project, or torchvision's ImageNet weights of a ResNet."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from runtime.errors import InputError
from training import networks


def load_weights(model: networks.Network, path: Path) -> None:
    """Start from a checkpoint; InputError unless it has the same configuration."""
    try:
        former = networks.load(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    if type(former) is not type(model) or former.config != model.config:
        raise InputError(f"{path}: has another configuration than the preset: {former.config}")
    model.load_state_dict(former.state_dict())


def load_backbone(model: networks.Network, source: str) -> None:
    """Load torchvision's ImageNet weights from a .pth or .safetensors file, or a URL (kept in torch's hub folder).

    The classifier is left out, everything else must fit.

    Raises:
        InputError: missing, unreadable, or weights of another network.
    """
    try:
        weights = _read(source)
        kept = {name: value for name, value in weights.items() if not name.startswith("fc.")}
        model.backbone.load_state_dict(kept)
    except (OSError, URLError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{source}: cannot read backbone weights: {_first_line(error)}") from error
    except (RuntimeError, AttributeError, TypeError) as error:
        what = model.config.backbone
        raise InputError(f"{source}: not weights of torchvision's {what}: {_first_line(error)}") from error


def _read(source: str) -> dict[str, torch.Tensor]:
    if source.startswith(("http://", "https://", "file://")):
        return torch.hub.load_state_dict_from_url(source, map_location="cpu", weights_only=True)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError("no such file")
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[:2])[:300]
