"""Arithmetic that stays in full precision under autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_full_precision(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)` in fp32 (fp64 of fp64) under autocast, too: coordinates in bf16 would be px coarse."""
    device = inputs[0].device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return function(*inputs)
    with torch.autocast(device, enabled=False):
        return function(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in inputs))
