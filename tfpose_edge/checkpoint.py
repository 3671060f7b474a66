"""One file holds a network: weights as safetensors, configuration and provenance in its metadata."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tfpose_edge.attention import Sampler
from tfpose_edge.attention.samplers import resolve_sampler
from tfpose_edge.config import PoseConfig
from tfpose_edge.model import TFPose

FORMAT = "tfpose-edge/1"
ARTIFACTS = (".onnx", ".xml", ".pte", ".mlpackage")


def save_checkpoint(path: str | Path, model: TFPose, provenance: dict[str, Any] | None = None) -> None:
    """Write `model` to a .safetensors file; the file appears whole or not at all.

    Args:
        path: target; its folder must exist.
        model: weights are written as they are (fp16 stays fp16), the sampler is not.
        provenance: JSON-able account of where the weights come from: data, epochs, figures.
    Raises:
        ValueError: the target cannot be a file there (`check_target`).
    """
    metadata = {
        "format": FORMAT,
        "config": model.config.to_json(),
        "provenance": json.dumps(provenance if provenance is not None else {}),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors writes files that only their owner can read


def check_target(path: str | Path) -> Path:
    """The path, if a file can be written there; ValueError if its folder is missing or not writable, or it is one."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"{path}: cannot be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: cannot be written: no permission to write in {path.parent}")
    return path


@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary name that becomes `path` at the end, or disappears on an exception; errors as `check_target`."""
    path = check_target(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, sampler: str | Sampler = "auto") -> TFPose:
    """Build the network that a checkpoint describes, on the CPU, in eval mode, in fp32.

    Raises:
        ValueError: the file is missing, damaged, not a checkpoint of this project, or does not fit its configuration;
            or the sampler is unknown or cannot run here.
    """
    metadata = _metadata(Path(path))
    resolve_sampler(sampler)
    try:
        model = TFPose(PoseConfig.from_json(metadata["config"]), sampler)
        tensors = load_file(path)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except (RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: the checkpoint does not fit its own configuration: {error}") from error
    return model.eval()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """The account of where a checkpoint's weights come from, as `save_checkpoint` got it."""
    provenance: dict[str, Any] = json.loads(_metadata(Path(path)).get("provenance", "{}"))
    return provenance


def _metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; expected a .safetensors file")
    if path.suffix in ARTIFACTS:
        raise ValueError(f"{path}: is an artifact; a checkpoint, a .safetensors file of training, is needed here")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        hint = "" if path.suffix == ".safetensors" else f", and its name ends with '{path.suffix}'"
        raise ValueError(f"{path}: not a readable .safetensors file{hint}: {error}") from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise ValueError(
            f"{path}: not a checkpoint of tfpose-edge (format is {metadata.get('format')!r}, not {FORMAT!r})"
        )
    return metadata


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trainable numbers in a network."""
    return sum(p.numel() for p in model.parameters())
