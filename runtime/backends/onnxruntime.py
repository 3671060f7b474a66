"""ONNX files in ONNX Runtime, on CPU, CUDA or Core ML: artifacts, and the networks of detectors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.network import NetworkInput
from runtime.backends.onnx_tensors import has_external_tensors
from runtime.errors import BackendUnavailable, ModelFileError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "coreml": "CoreMLExecutionProvider"}
EXTERNAL_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


class OnnxRuntimeBackend:
    """One inference session; safe to use from several threads."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.session = open_session(path, device, threads)
        self.input_name = self.session.get_inputs()[0].name

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) -> key points (N, K, 2), fractions of the crop; scores (N, K)."""
        keypoints, scores = self.session.run(["keypoints", "scores"], {self.input_name: crops})
        return keypoints, scores

    def close(self) -> None:
        """Drop the session."""
        del self.session


class OnnxRuntimeNetwork:
    """Any network: what detectors run in. Safe to use from several threads."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.session = open_session(path, device, threads)
        self.inputs = [
            NetworkInput(one.name, tuple(n if isinstance(n, int) else None for n in one.shape), _dtype_of(one.type))
            for one in self.session.get_inputs()
        ]

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All inputs -> all outputs, both in the file's order."""
        named = {one.name: given for one, given in zip(self.inputs, inputs, strict=True)}
        outputs: list[NDArray[Any]] = self.session.run(None, named)
        return outputs


def open_session(path: Path, device: str, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on exactly that device; external data is refused."""
    onnxruntime = import_engine()
    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        built = ", ".join(name for name, its in PROVIDERS.items() if its in onnxruntime.get_available_providers())
        raise BackendUnavailable(f"this onnxruntime cannot run on '{device}', it can on {built}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry(EXTERNAL_FOLDER_KEY, str(path / "none"))  # external data is never found
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    refuse_external_data(path, model)
    try:
        # the bytes, not the path: so weights outside the checked file are refused by the engine, too
        session = onnxruntime.InferenceSession(model, options, providers=provider_list(provider))
    except Exception as error:
        raise ModelFileError(f"{path}: onnxruntime cannot load it: {error}") from error
    if provider not in session.get_providers():
        raise BackendUnavailable(f"onnxruntime cannot start '{device}' on this machine (missing driver or library)")
    return session


def import_engine() -> Any:
    """The module, with its telemetry off: from 1.29 on it reports models to Microsoft and keeps a database in ~/.cache.

    Only the environment variable, read when it is imported, prevents both. Who sets it to 0 gets the telemetry back.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def refuse_external_data(path: Path, model: bytes) -> None:
    """ModelFileError for weights in other files: no sha256 covers them, and a path or hard link can lead anywhere."""
    try:
        is_external = has_external_tensors(model)
    except ValueError as error:
        raise ModelFileError(f"{path}: onnxruntime cannot load it: no ONNX file: {error}") from error
    if is_external:
        raise ModelFileError(f"{path}: has external data (weights in other files), an artifact is a single file")


def provider_list(provider: str) -> list[str]:
    """The asked-for provider first; CPU behind it for the operations that accelerators leave to their host."""
    return [provider] if provider == PROVIDERS["cpu"] else [provider, PROVIDERS["cpu"]]


def _dtype_of(onnx_type: str) -> str:
    """ "tensor(float)" -> "float32", "tensor(uint8)" -> "uint8"."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)
