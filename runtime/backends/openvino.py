"""OpenVINO IR (.xml with .bin) on CPU, GPU or NPU: artifacts, and the networks of detectors."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.network import NetworkInput
from runtime.errors import BackendUnavailable, ModelFileError


class OpenVinoBackend:
    """One compiled model; each thread has its own infer request, because shared ones mix up results."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.model = compile_file(path, device, threads)
        try:
            self.outputs = [self.model.output("keypoints"), self.model.output("scores")]
        except Exception as error:
            raise ModelFileError(f"{path}: openvino cannot load it: {error}") from error
        self.local = threading.local()

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) -> key points (N, K, 2), fractions of the crop; scores (N, K)."""
        keypoints, scores = run_request(self.model, self.local, [crops], self.outputs)
        return keypoints, scores

    def close(self) -> None:
        """Drop the compiled model and the requests."""
        del self.model, self.outputs, self.local


class OpenVinoNetwork:
    """Any network: what detectors run in. Each thread has its own infer request."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.model = compile_file(path, device, threads)
        self.local = threading.local()
        self.inputs = [
            NetworkInput(
                one.any_name, tuple(_length_of(n) for n in one.partial_shape), one.element_type.to_dtype().name
            )
            for one in self.model.inputs
        ]

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All inputs -> all outputs, both in the file's order."""
        return run_request(self.model, self.local, list(inputs), self.model.outputs)


def import_engine() -> Any:
    """The module without its telemetry, which reports to Google and keeps files in ~/intel.

    OpenVINO uses a stub of its own where the package `openvino_telemetry` cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def compile_file(path: Path, device: str, threads: int) -> Any:
    """An `openvino.CompiledModel` on exactly that device."""
    openvino = import_engine()
    core = openvino.Core()
    present = sorted({name.split(".")[0] for name in core.available_devices})
    if device.upper() not in present:
        raise BackendUnavailable(f"openvino finds no '{device}' here, it finds {', '.join(present).lower()}")
    try:
        return core.compile_model(core.read_model(path), device.upper(), compile_options(device, threads))
    except Exception as error:
        raise ModelFileError(f"{path}: openvino cannot load it: {error}") from error


def run_request(
    model: Any, local: threading.local, inputs: list[NDArray[Any]], outputs: list[Any]
) -> list[NDArray[Any]]:
    """Run this thread's infer request; copies, because the request's memory is overwritten by the next run."""
    if not hasattr(local, "request"):
        local.request = model.create_infer_request()
    local.request.infer(inputs, share_inputs=True)
    return [local.request.get_tensor(output).data.copy() for output in outputs]


def compile_options(device: str, threads: int) -> dict[str, Any]:
    """On CPU: the threads asked for, and fp32 arithmetic (else some CPUs silently compute in bf16)."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":
        options |= {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    return options


def _length_of(dimension: Any) -> int | None:
    return None if dimension.is_dynamic else dimension.get_length()
