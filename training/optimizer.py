"""AdamW with the paper's parameter groups and schedule (section 4.1), and the average of the weights on its way.

Deviation from the paper: it names no average; the presets that are ours ship one (EMA), whose decay grows with the
steps, so that a run of a few hundred steps does not ship its first weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

PAPER_LR = 4e-3
PAPER_BATCH = 1024
"""The batch that `PAPER_LR` is taken to belong to; the paper does not say."""
EMA_DECAY = 0.999
"""The largest."""
TRANSFORMER = ("encoder.", "decoder.", "keypoint_heads.")
SCORE_HEAD, SCORE_LR_FACTOR = "score_head.", 10.0
"""It learns alone, as its gradient stops before the network: one layer that has to keep up with what it reads."""


def scaled_lr(batch_size: int, lr: float = PAPER_LR, of_batch: int = PAPER_BATCH) -> float:
    """A learning rate that belongs to batch `of_batch`, for a global batch of another size, linearly."""
    return lr * batch_size / of_batch


def build_optimizer(
    model: nn.Module, lr: float, weight_decay: float, transformer_lr_factor: float
) -> torch.optim.AdamW:
    """A group for each learning rate (transformer, score head, all else), twice: biases and norms do not decay.

    Parameters that need no gradient are in none.
    """

    def factor(name: str) -> float:
        """Of the parameter's learning rate, over the backbone's."""
        if name.startswith(SCORE_HEAD):
            return SCORE_LR_FACTOR
        return transformer_lr_factor if name.startswith(TRANSFORMER) else 1.0

    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        groups.setdefault((factor(name), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": lr * of_group,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (of_group, decays), parameters in groups.items()
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


def average_of(model: nn.Module) -> AveragedModel:
    """An exponential average of weights and buffers; `update_parameters(model)` after every step."""
    return AveragedModel(model, multi_avg_fn=_move_towards, use_buffers=True)


def ema_decay(updates: int) -> float:
    """Share of the average that an update keeps after `updates` others: (1 + n) / (10 + n), `EMA_DECAY` at most."""
    return min(EMA_DECAY, (1 + updates) / (10 + updates))


@torch.no_grad()
def _move_towards(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
    """One step of the average of tensors of one type; integers, which count batches, are copied."""
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(list(averaged), list(current), 1 - ema_decay(int(updates)))
    else:
        torch._foreach_copy_(list(averaged), list(current))
