"""int8 for ExecuTorch by PT2E: which layers XNNPACK computes in 8 bits, and their ranges from crops.

Weights have one scale per output channel. Convolutions have static ranges of activations, taken from the crops; linear
layers have theirs from each input, which costs little and does not fear an unusual picture. What computes coordinates
stays in floating point: sampling offsets, attention weights, key point and score heads, normalisation, softmax and
everything between (docs/executorch.md).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

CONVOLUTION, LINEAR, ADD = torch.ops.aten.conv2d.default, torch.ops.aten.linear.default, torch.ops.aten.add.Tensor
IN_FLOAT = re.compile(r"sampling_offsets|attention_weights|keypoint_heads|score_head")
"""Names of modules whose layers are never quantised."""
SHORTCUTS = re.compile(r"\bbackbone\b")
"""Names of modules whose sums are quantised: the residual connections between convolutions."""


def quantise(graph: nn.Module, example: Tensor, crops: NDArray[np.uint8]) -> fx.GraphModule:
    """The graph with 8-bit layers, ready for `torch.export.export`; `crops` (N, 3, H, W) set the ranges."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    traced = torch.export.export(graph, (example,)).module(check_guards=False)
    prepared = prepare_pt2e(traced, quantizer())
    batch = len(example)
    with torch.no_grad():
        for start in range(0, len(crops) - batch + 1, batch):
            prepared(torch.from_numpy(crops[start : start + batch]).to(example.dtype))
    converted: fx.GraphModule = convert_pt2e(prepared)
    return converted


def quantizer() -> Any:
    """XNNPACK's: static for convolutions and the backbone's sums, dynamic for linear layers, as `is_quantised` says."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    chosen = XNNPACKQuantizer().set_filter_function(is_quantised)
    chosen.set_operator_type(CONVOLUTION, get_symmetric_quantization_config(is_per_channel=True))
    chosen.set_operator_type(LINEAR, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    return chosen.set_operator_type(ADD, get_symmetric_quantization_config())


def is_quantised(node: fx.Node) -> bool:
    """Whether a node of a traced graph may be computed in 8 bits.

    Layers may that are modules of torch (the forms in `xnnpack_forms` are not) with a name not in `IN_FLOAT`, and sums
    in `SHORTCUTS`. Weights and activations, which follow their layer, may always.
    """
    if node.target not in (CONVOLUTION, LINEAR, ADD):
        return True
    name, kind = next(reversed(node.meta["nn_module_stack"].values()))
    if node.target is ADD:
        return bool(SHORTCUTS.search(name))
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return kind.startswith("torch.nn.modules.") and not IN_FLOAT.search(name)
