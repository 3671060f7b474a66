"""AdamW with the paper's parameter groups and schedule (section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import nn

PAPER_LR = 4e-3
PAPER_BATCH = 1024
"""The batch that `PAPER_LR` is taken to belong to; the paper does not say."""
TRANSFORMER = ("encoder.", "decoder.", "keypoint_heads.")


def scaled_lr(batch_size: int) -> float:
    """The paper's learning rate for a global batch of another size, linearly."""
    return PAPER_LR * batch_size / PAPER_BATCH


def build_optimizer(
    model: nn.Module, lr: float, weight_decay: float, transformer_lr_factor: float
) -> torch.optim.AdamW:
    """Four groups: transformer or not, weights or biases and norms (which do not decay)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith(TRANSFORMER), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": lr * (transformer_lr_factor if transformer else 1.0),
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (transformer, decays), parameters in groups.items()
        ],
        betas=(0.9, 0.999),
    )


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate at `step` of `steps`: linear warm-up, then a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate from its own base."""
    for group in optimizer.param_groups:
        group.setdefault("base_lr", group["lr"])
        group["lr"] = group["base_lr"] * factor
