"""Core ML packages (.mlpackage) on CPU, GPU and Neural Engine. Prediction exists on macOS only."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendUnavailable, ModelFileError

COMPUTE_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}


class CoreMLBackend:
    """One loaded package. Core ML sizes its own thread pool: `threads` has no effect."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        if platform.system() != "Darwin":
            raise BackendUnavailable(f"{path.name}: Core ML predicts on macOS only, this is {platform.system()}")
        import coremltools

        try:
            units = getattr(coremltools.ComputeUnit, COMPUTE_UNITS[device])
            self.model = coremltools.models.MLModel(str(path), compute_units=units)
            self.takes_image = takes_image(self.model.get_spec())
        except Exception as error:
            raise ModelFileError(f"{path}: Core ML cannot load it: {error}") from error

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) float32, or (1, 3, H, W) uint8 for a model of images -> key points (N, K, 2), fractions of
        the crop; scores (N, K)."""
        outputs = self.model.predict({"crops": as_image(crops) if self.takes_image else crops})
        keypoints, scores = (np.asarray(outputs[name], dtype=np.float32) for name in ("keypoints", "scores"))
        return keypoints, scores

    def close(self) -> None:
        """Drop the model."""
        del self.model


def takes_image(spec: Any) -> bool:
    """Whether a model's input `crops` is an image, not an array."""
    return any(one.name == "crops" and one.type.WhichOneof("Type") == "imageType" for one in spec.description.input)


def as_image(crops: NDArray[Any]) -> Any:
    """The one crop of (1, 3, H, W) uint8 RGB as the picture that Core ML wants."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(crops[0].transpose(1, 2, 0)))
