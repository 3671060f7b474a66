"""Models whose key points move, for the tests of the converters."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tfpose_edge import PRESETS, PoseConfig, TFPose
from tfpose_edge.attention import DeformableAttention


def lively_model(config: PoseConfig = PRESETS["tiny"], seed: int = 0) -> TFPose:
    """A random network whose every part matters: a fresh one gives the same key points for every crop."""
    torch.manual_seed(seed)
    model = TFPose(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, DeformableAttention):
            nn.init.normal_(module.sampling_offsets.weight, 0, 0.1)
            nn.init.normal_(module.attention_weights.weight, 0, 0.1)
            nn.init.normal_(module.value_proj.bias, 0, 0.5)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.2)
    for head in model.keypoint_heads:
        nn.init.normal_(head.layers[-1].weight, 0, 0.3)
        nn.init.normal_(head.layers[-1].bias, 0, 0.5)
    nn.init.normal_(model.reference_logits, 0, 1)
    if model.level_embed is not None:
        nn.init.normal_(model.level_embed, 0, 0.5)
    return model


def blob_crops(config: PoseConfig = PRESETS["tiny"], count: int = 64, seed: int = 0) -> np.ndarray:
    """Crops (count, 3, H, W) uint8 with smooth blobs: enough for the key points to move."""
    width, height = config.input_size_wh
    coarse = torch.rand(count, 3, 6, 5, generator=torch.Generator().manual_seed(seed)) * 255
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear").round().to(torch.uint8).numpy()
