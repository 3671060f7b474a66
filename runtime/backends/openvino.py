"""OpenVINO IR (.xml with .bin) on CPU, GPU or NPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendUnavailable, ModelFileError


class OpenVinoBackend:
    """One compiled model; each thread has its own infer request, because shared ones mix up results."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        import openvino

        core = openvino.Core()
        present = sorted({name.split(".")[0] for name in core.available_devices})
        if device.upper() not in present:
            raise BackendUnavailable(f"openvino finds no '{device}' here, it finds {', '.join(present).lower()}")
        try:
            self.model = core.compile_model(core.read_model(path), device.upper(), compile_options(device, threads))
            self.outputs = [self.model.output("keypoints"), self.model.output("scores")]
        except Exception as error:
            raise ModelFileError(f"{path}: openvino cannot load it: {error}") from error
        self.local = threading.local()

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) -> key points (N, K, 2), fractions of the crop; scores (N, K)."""
        if not hasattr(self.local, "request"):
            self.local.request = self.model.create_infer_request()
        request = self.local.request
        request.infer([crops], share_inputs=True)
        keypoints, scores = (request.get_tensor(output).data.copy() for output in self.outputs)
        return keypoints, scores

    def close(self) -> None:
        """Drop the compiled model and the requests."""
        del self.model, self.outputs, self.local


def compile_options(device: str, threads: int) -> dict[str, Any]:
    """On CPU: the threads asked for, and fp32 arithmetic (else some CPUs silently compute in bf16)."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "cpu":
        options |= {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    return options
