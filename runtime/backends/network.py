"""Networks that are no artifacts of ours, such as detectors: opened in the same engines, without a sidecar."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from runtime.backends import check_threads, engine_for
from runtime.errors import BackendUnavailable, ModelFileError

CLASS_NAMES = {"onnxruntime": "OnnxRuntimeNetwork", "openvino": "OpenVinoNetwork"}


class NetworkInput(NamedTuple):
    """What a network wants."""

    name: str
    shape: tuple[int | None, ...]  # None = any length
    dtype: str  # as numpy calls it


class Network(Protocol):
    """Pictures in, and what else it asks for; all outputs out."""

    inputs: list[NetworkInput]

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All inputs -> all outputs, both in the file's order."""


def open_network(path: Path, device: str = "cpu", threads: int | None = None) -> Network:
    """Load a network into the engine of its extension.

    Raises:
        BackendUnavailable: unknown device, engine not installed, device absent.
        ModelFileError: no such file, another format, or the engine cannot load it.
    """
    if path.suffix not in (".onnx", ".xml"):
        raise ModelFileError(
            f"{path}: the extension is '{path.suffix}', networks without a sidecar run as .onnx and .xml"
        )
    engine = engine_for(path)
    if not os.path.isfile(path):
        raise ModelFileError(f"{path}: no such file")
    if device not in engine.devices:
        raise BackendUnavailable(f"{engine.name} has no device '{device}', legal are {', '.join(engine.devices)}")
    module = importlib.import_module(f"runtime.backends.{engine.name}")
    try:
        network: Network = getattr(module, CLASS_NAMES[engine.name])(path, device, check_threads(threads))
    except ImportError as error:
        message = f"{path.name} needs {engine.name}, which cannot be imported ({error}): {engine.install}"
        raise BackendUnavailable(message) from error
    return network
