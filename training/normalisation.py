"""Batch normalisation in training: statistics of each process, shared by all of them, or frozen."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_choice(sync: bool, freeze: bool, device_type: str) -> None:
    """ValueError for statistics that are frozen and shared, or shared where torch cannot: it does on GPUs alone."""
    if sync and freeze:
        raise ValueError(
            "--sync-batchnorm and --freeze-batchnorm exclude each other: frozen statistics need no sharing"
        )
    if sync and device_type != "cuda":
        raise ValueError(
            f"--sync-batchnorm needs GPUs, but training runs on {device_type}; leave it out, or use --freeze-batchnorm"
        )


def share_statistics(network: nn.Module) -> None:
    """Let every BatchNorm of `network` average over the processes of a distributed run (SyncBatchNorm), in place."""
    nn.SyncBatchNorm.convert_sync_batchnorm(network)


def train_mode(network: nn.Module, freeze: bool) -> None:
    """Train mode; with `freeze` every BatchNorm normalises by the running statistics that it has, and keeps them.

    Its scales and offsets still learn. BatchNorms whose scales need no gradient keep their statistics in any case.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            scales = [parameter.requires_grad for parameter in module.parameters()]
            if freeze or (scales and not any(scales)):
                module.eval()
