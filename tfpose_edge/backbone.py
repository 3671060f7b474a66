"""The table of backbones: names, and what builds them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tfpose_edge.mobilenet import STAGES, MobileNet
from tfpose_edge.resnet import BLOCKS_PER_STAGE, ResNet
from tfpose_edge.timm_backbone import PREFIX, TimmBackbone

Backbone = ResNet | MobileNet | TimmBackbone
BUILDERS: dict[str, Callable[[int], Backbone]] = {
    **{name: partial(ResNet, name) for name in BLOCKS_PER_STAGE},
    **{name: partial(MobileNet, name) for name in STAGES},
}


def build_backbone(name: str, width: int) -> Backbone:
    """A new backbone; it gives C2..C5, `channels` says how many channels each has.

    Args:
        name: a key of `BUILDERS`; `tfpose_edge.config.BACKBONES` lists them, too. Or timm:NAME, a model of timm.
        width: channels of its stem; timm's models have their own.
    """
    if name.startswith(PREFIX):
        return TimmBackbone(name.removeprefix(PREFIX))
    return BUILDERS[name](width)
