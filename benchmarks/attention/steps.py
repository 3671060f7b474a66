"""Whole training steps with different samplers: pictures per second and peak memory, up to the largest batch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator

from tfpose_edge import PRESETS, PoseConfig, TFPose
from training import engine
from training.data.dataset import Batch
from training.optimizer import build_optimizer, scaled_lr

FIRST_BATCH, LAST_BATCH = 16, 4096
WARM_UP, STEPS = 3, 10


class Step(NamedTuple):
    """One preset, sampler and batch."""

    preset: str
    sampler: str
    batch: int
    pictures_per_s: float
    peak_bytes: int | None
    """Of the device's memory, as torch allocated it; None on a CPU."""


def double_until_full(
    presets: Sequence[str], samplers: Sequence[str], progress: Callable[[str], None], last: int = LAST_BATCH
) -> Iterator[Step]:
    """Steps of doubling batches until one does not fit the GPU's memory, and of the batch between that and the last."""
    for preset in presets:
        for sampler in samplers:
            batch = FIRST_BATCH
            while batch <= last and (step := step_if_it_fits(preset, sampler, batch, progress)):
                yield step
                batch *= 2
            between = 3 * batch // 4
            if FIRST_BATCH < between <= last and (step := step_if_it_fits(preset, sampler, between, progress)):
                yield step


def step_if_it_fits(preset: str, sampler: str, batch: int, progress: Callable[[str], None]) -> Step | None:
    """`training_steps`; None where they need more memory than the GPU has."""
    progress(f"{preset} {sampler} batch {batch}")
    try:
        return training_steps(PRESETS[preset], preset, sampler, batch)
    except torch.OutOfMemoryError:
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def training_steps(config: PoseConfig, preset: str, sampler: str, batch: int, steps: int = STEPS) -> Step:
    """Time optimiser steps on random crops, bf16 autocast, with the loop, losses and optimiser of `training`."""
    accelerator = Accelerator(mixed_precision="bf16")
    device = accelerator.device
    model = TFPose(config, sampler).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(model, scaled_lr(batch), weight_decay=1e-4, transformer_lr_factor=0.1)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    on_gpu = device.type == "cuda"
    batches = [random_batch(config, batch, device)] * (WARM_UP + steps)
    begun = 0.0
    for done, _ in enumerate(engine.train_epoch(wrapped, batches, optimizer, accelerator, lambda: 1.0), start=1):
        if on_gpu:
            torch.cuda.synchronize(device)
        if done == WARM_UP:
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(device)
            begun = time.perf_counter()
    pictures_per_s = batch * steps / (time.perf_counter() - begun)
    return Step(preset, sampler, batch, pictures_per_s, torch.cuda.max_memory_allocated(device) if on_gpu else None)


def random_batch(config: PoseConfig, batch: int, device: torch.device) -> Batch:
    """Noise as crops, key points anywhere in them, all labelled."""
    width, height = config.input_size_wh
    shape = (batch, config.num_keypoints)
    return Batch(
        crops=torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, device=device),
        keypoints=torch.rand(*shape, 2, device=device),
        labelled=torch.ones(shape, dtype=torch.bool, device=device),
        named=torch.ones(shape, dtype=torch.bool, device=device),
        area_px=torch.full((batch,), width * height / 4, device=device),
        matrix=torch.eye(2, 3, dtype=torch.float64, device=device).repeat(batch, 1, 1),
        place=torch.arange(batch, device=device),
        asked=torch.arange(batch, device=device),
    )


def step_rows(steps: Sequence[Step]) -> list[list[str]]:
    """Heading and one row a step; the last batch of each sampler is the largest that fits."""
    rows = [["preset", "sampler", "batch", "pictures/s", "peak GB"]]
    for step in steps:
        peak = f"{step.peak_bytes / 1e9:.1f}" if step.peak_bytes is not None else "-"
        rows.append([step.preset, step.sampler, str(step.batch), f"{step.pictures_per_s:.1f}", peak])
    return rows
