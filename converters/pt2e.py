"""int8 for ExecuTorch by PT2E: which layers XNNPACK computes in 8 bits, and their ranges from crops.

Convolutions and the sums between them are: weights with a scale per output channel, activations with static ranges
taken from the crops. Everything that computes coordinates or stands between stays in floating point: linear layers,
sampling, normalisation, softmax and the heads (docs/executorch.md).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from converters.quantize import batches_of, is_fine

CONVOLUTION, ADD = torch.ops.aten.conv2d.default, torch.ops.aten.add.Tensor
SHORTCUTS = re.compile(r"\bbackbone\b")
"""Names of modules whose sums are quantised: the residual connections between convolutions."""


def quantise(graph: nn.Module, example: Tensor, crops: NDArray[np.uint8]) -> fx.GraphModule:
    """The graph with 8-bit layers, ready for `torch.export.export`; `crops` (N, 3, H, W) set the ranges."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    traced = torch.export.export(graph, (example,)).module(check_guards=False)
    prepared = prepare_pt2e(traced, quantizer(example.shape[2]))
    with torch.no_grad():
        for batch in batches_of(crops, len(example)):
            prepared(torch.from_numpy(batch).to(example.dtype))
    converted: fx.GraphModule = convert_pt2e(prepared)
    return converted


def quantizer(crop_height: int) -> Any:
    """XNNPACK's, for what `is_quantised` says."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    chosen = XNNPACKQuantizer().set_filter_function(lambda node: is_quantised(node, crop_height))
    chosen.set_operator_type(CONVOLUTION, get_symmetric_quantization_config(is_per_channel=True))
    return chosen.set_operator_type(ADD, get_symmetric_quantization_config())


def is_quantised(node: fx.Node, crop_height: int) -> bool:
    """Whether a node of a traced graph may be computed in 8 bits.

    Convolutions may that are modules of torch (those of the forms in `xnnpack_forms` are not) and whose maps have less
    than half of the crop's rows (what everything else reads stays exact), and sums in `SHORTCUTS`. Weights and
    activations, which follow their convolution, may always.
    """
    if node.target not in (CONVOLUTION, ADD):
        return True
    name, kind = next(reversed(node.meta["nn_module_stack"].values()))
    if node.target is ADD:
        return bool(SHORTCUTS.search(name))
    if is_fine(node.meta["val"].shape[2], crop_height):
        return False
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return kind.startswith("torch.nn.modules.")
