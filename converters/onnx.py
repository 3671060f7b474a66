"""ONNX: one file with the weights inside, for onnxruntime and everything else that reads the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.errors import ConversionError
from converters.graph import INPUT_NAME, OUTPUT_NAMES, ExportGraph
from converters.onnx_half import to_half
from converters.quantize import quantize_onnx
from converters.recipe import Recipe

OPSET = 20
MAX_BYTES = 2**31 - 1  # of one protobuf message


def convert(graph: ExportGraph, example: Tensor, path: Path, recipe: Recipe) -> dict[str, Any]:
    """Write the graph as `path` (.onnx); ConversionError if it does not fit one file or fails ONNX's own check."""
    import onnx

    program = torch.onnx.export(
        graph,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT_NAME],
        output_names=list(OUTPUT_NAMES),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    if proto.ByteSize() > MAX_BYTES:
        raise ConversionError(f"onnx: the model has {proto.ByteSize()} bytes, one file holds {MAX_BYTES}")
    forget_origins(proto)
    if recipe.precision == "fp16":
        proto = to_half(proto, weights_only=recipe.mix == "storage")
    elif recipe.calibration is not None:
        proto = quantize_onnx(proto, recipe.calibration, len(example), recipe.mix)
        forget_origins(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return {"opset": OPSET, "mix": recipe.mix, "operations": len(proto.graph.node)}


def forget_origins(proto: Any) -> None:
    """Drop what the exporter notes about each node's Python source: a third of a small file, with paths in it."""
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
