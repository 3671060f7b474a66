"""What an artifact is made for, beside its graph: one value that every format's `convert` is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRECISIONS = {
    "fp32": "single precision throughout",
    "fp16": "half-precision weights, and arithmetic where the engine has it; coordinates in single precision "
    "(OpenVINO computes them so, from constants in half)",
    "int8": "8-bit weights, and arithmetic where it pays; coordinates in floating point",
}
"""Name -> what it means; `Format.precisions` says which format has which."""

MIXES = {
    "all": "convolutions and linear layers compute in eight bits",
    "convolutions": "convolutions alone do",
    "weights": "weights are stored in eight bits",
    "palette": "weights are stored as indices of palettes of 64 values",
    "arithmetic": "weights and arithmetic are in half precision, where that is exact enough",
    "storage": "weights are stored in half precision, arithmetic is single",
}
"""What int8 and fp16 mean where a format has several answers; `Format.mixes_of` says which, the default first."""


@dataclass(frozen=True)
class Recipe:
    """The caller's wishes. A format reads those that it knows; `Format.precisions` has refused what it cannot make."""

    precision: str = "fp32"
    """A key of `PRECISIONS`."""
    calibration: NDArray[np.uint8] | None = None
    """Crops (N, 3, H, W) RGB whose activations set the ranges of int8; None at other precisions."""
    delegate: str = "xnnpack"
    """Of ExecuTorch: a key of `delegation.DELEGATES`."""
    progress: Callable[[str], None] = lambda line: None
    """What is told about steps that take long."""
    mix: str | None = None
    """A key of `MIXES`, where the format has any at this precision."""
    image_input: bool = False
    """Core ML: crops come as an RGB image."""
