"""Which network a run trains: TFPose or a rival, of a preset with changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tfpose_edge import PRESETS, PoseConfig, TFPose, load_checkpoint, save_checkpoint
from tfpose_edge.attention import Sampler
from tfpose_edge.checkpoint import written_whole
from training.rivals import DeepPose, SimpleBaseline

Network = TFPose | DeepPose | SimpleBaseline
RIVALS: dict[str, type[DeepPose | SimpleBaseline]] = {"deeppose": DeepPose, "simplebaseline": SimpleBaseline}
RIVAL_FORMAT = "rival of tfpose-edge/1, only for comparisons: "


def configuration(preset: str, changes: Sequence[str] = ()) -> PoseConfig:
    """A preset with fields replaced.

    Args:
        preset: a key of `PRESETS`.
        changes: FIELD=VALUE each; true or false, numbers, texts, and lists as in input_size_wh=96,128.
    Raises:
        ValueError: names what is unknown or not legal.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; legal are {', '.join(PRESETS)}")
    config, legal = PRESETS[preset], [field.name for field in dataclasses.fields(PoseConfig)]
    for change in changes:
        field, equals, text = change.partition("=")
        if not equals or field not in legal:
            problem = "has an unknown field" if equals else "is not FIELD=VALUE"
            raise ValueError(f"the change {change!r} {problem}; legal fields are {', '.join(legal)}")
        value: Any = _parsed(text, getattr(config, field), change)
        config = dataclasses.replace(config, **{field: value})
    return config


def changes_of(preset: str, config: PoseConfig) -> tuple[str, ...]:
    """The fewest changes that make `config` of a preset, as `configuration` reads them."""
    base, wanted = vars(PRESETS[preset]), vars(config)
    return tuple(f"{field}={_text(value)}" for field, value in wanted.items() if value != base[field])


def build(
    network: str, config: PoseConfig, sampler: str | Sampler = "auto", sample_then_project: bool = False
) -> Network:
    """A new network, "tfpose" or a key of `RIVALS`; what rivals lack of the configuration they leave unused."""
    return RIVALS[network](config) if network in RIVALS else TFPose(config, sampler, sample_then_project)


def start_at(network: Network, keypoints: Tensor) -> None:
    """Let a new network that regresses begin at the mean pose `keypoints` (K, 2), fractions of the crop."""
    if isinstance(network, TFPose):
        network.reference_logits.data.copy_(torch.logit(keypoints))
    elif isinstance(network, DeepPose):
        network.start_at(keypoints)


def save(path: str | Path, network: Network, provenance: dict[str, Any] | None = None) -> None:
    """`save_checkpoint`, or for a rival a file of the same form that `load_checkpoint` refuses by its format."""
    if isinstance(network, TFPose):
        return save_checkpoint(path, network, provenance)
    name = next(name for name, rival in RIVALS.items() if isinstance(network, rival))
    metadata = {
        "format": RIVAL_FORMAT + name, "config": network.config.to_json(), "provenance": json.dumps(provenance or {})
    }  # fmt: skip
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)


def load(path: str | Path, sampler: str | Sampler = "auto") -> Network:
    """What `save` wrote, on the CPU, in eval mode; ValueError as `load_checkpoint`."""
    metadata = _metadata(path)
    rival = RIVALS.get(metadata.get("format", "").removeprefix(RIVAL_FORMAT))
    if rival is None:
        return load_checkpoint(path, sampler)
    try:
        network = rival(PoseConfig.from_json(metadata["config"]))
        network.load_state_dict(load_file(path))
    except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: the checkpoint does not fit its own configuration: {error}") from error
    return network.eval()


def _metadata(path: str | Path) -> dict[str, str]:
    """Of a .safetensors file; empty where it cannot be read, which `load_checkpoint` explains."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _parsed(text: str, former: object, change: str) -> object:
    """The value of a change, of the type that the field has."""
    if isinstance(former, tuple):
        return tuple(_parsed(part, former[0], change) for part in text.split(","))
    if isinstance(former, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if type(value) is not type(former) and not (isinstance(former, float) and type(value) is int):
        what = {bool: "true or false", int: "an integer", float: "a number"}[type(former)]
        raise ValueError(f"the change {change!r}: {text!r} is not {what}")
    return value


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)
