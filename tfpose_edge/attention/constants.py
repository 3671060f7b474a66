"""Constants of a forward pass, made where they are used."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def constant(values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.tensor(values)` of numbers or of rows of them, but without a copy from the host to another device.

    Such a copy waits, and no CUDA graph can capture it. On the CPU it is one constant of an exported graph; elsewhere
    runs of equal numbers are filled in.
    """
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype)
    if isinstance(values[0], Sequence):
        return torch.stack([constant(row, dtype, device) for row in values])
    runs = [(value, len(list(run))) for value, run in itertools.groupby(values)]
    return torch.cat([torch.full((length,), value, dtype=dtype, device=device) for value, length in runs])
