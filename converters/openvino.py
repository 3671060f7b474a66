"""OpenVINO IR: `pose.xml`, the graph, and `pose.bin`, its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.graph import INPUT_NAME, OUTPUT_NAMES, ExportGraph
from converters.quantize import quantize_openvino
from converters.recipe import Recipe


def convert(graph: ExportGraph, example: Tensor, path: Path, recipe: Recipe) -> dict[str, Any]:
    """Write the graph as `path` (.xml) and a .bin beside it, with static shapes; in fp16 its weights alone are half."""
    import openvino

    model = openvino.convert_model(torch.export.export(graph, (example,)), input=[tuple(example.shape)])
    model.inputs[0].get_tensor().set_names({INPUT_NAME})
    for output, name in zip(model.outputs, OUTPUT_NAMES, strict=True):
        output.get_tensor().set_names({name})
    if recipe.calibration is not None:
        model = quantize_openvino(model, recipe.calibration, len(example), recipe.mix)
    openvino.save_model(model, path, compress_to_fp16=recipe.precision == "fp16")
    nodes = [node.get_type_name() for node in model.get_ops()]
    return {"mix": recipe.mix, "operations": sum(kind not in ("Constant", "Parameter", "Result") for kind in nodes)}
