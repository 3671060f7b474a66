"""The implementations that run on a device, and why the others do not."""

from __future__ import annotations

import importlib

import torch

from tfpose_edge.attention import SAMPLERS, Sampler, get_sampler

COMPILED = "grid_sample compiled"
ROUTES = ("triton", "shared")
"""Backward passes of the fused kernel."""


def implementations(device: torch.device) -> tuple[dict[str, Sampler], dict[str, str]]:
    """(name -> sampler that runs on `device`, name -> reason of each that does not)."""
    found: dict[str, Sampler] = {}
    missing: dict[str, str] = {}
    for name in SAMPLERS:
        try:
            found[name] = get_sampler(name, device)
        except (ImportError, ValueError) as error:
            missing[name] = str(error)
    if "fused" in found:
        fused = importlib.import_module("tfpose_edge.attention.fused")
        routes = ROUTES if device.type == "cuda" else ROUTES[:1]  # shared memory is not interpreted
        found |= {f"fused {route}": fused.with_backward(route) for route in routes}
    found[COMPILED] = torch.compile(get_sampler("grid_sample"), dynamic=False)
    return found, missing


def own_sampler(text: str) -> tuple[str, Sampler]:
    """(name, sampler) of `MODULE:FUNCTION`; ValueError says what is missing."""
    module, _, function = text.partition(":")
    try:
        sampler: Sampler = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--also {text}: {error}; legal is MODULE:FUNCTION of something importable") from error
    return function, sampler
