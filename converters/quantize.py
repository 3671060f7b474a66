"""Eight bits for ONNX (onnxruntime's static quantisation) and OpenVINO (NNCF): what takes them, and what stays float.

Float stay, in every mix: coordinates and what follows from them (`converters.coordinates`: offset projections, the last
layers of the coordinate heads, reference points, indices, bilinear weights), products of two activations, softmax,
sigmoid and normalisations. In ONNX the first convolutions do as well, those of maps of half the crop's size: everything
reads them, and their errors cost more key points than all others'. docs/performance.md compares both tools.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.coordinates import origins, reach
from converters.graph import INPUT_NAME
from converters.onnx_half import coordinate_sinks

Crops = NDArray[np.uint8]
CONVOLUTIONS = ("Conv", "Convolution", "GroupConvolution")
PRODUCTS = ("Gemm", "MatMul")


class Anatomy(NamedTuple):
    """What must be known of a graph, whichever format it has; operations by the names that the tools have for them."""

    kinds: dict[str, str]  # operation -> the format's name of its type, in the order of computation
    reads: dict[str, list[str]]  # operation -> those whose results it takes
    weighted: set[str]  # operations that multiply by a constant matrix or kernel
    sinks: list[str]  # operations that give a coordinate


def kept_float(anatomy: Anatomy, mix: str | None) -> list[str]:
    """The operations that a mix of `recipe.MIXES` leaves in float."""
    linear = {name for name, kind in anatomy.kinds.items() if kind in (*CONVOLUTIONS, *PRODUCTS)}
    kept = reach(anatomy.reads, origins(anatomy.reads, anatomy.sinks, linear), linear)
    products = {name for name, kind in anatomy.kinds.items() if kind in PRODUCTS}
    kept |= products if mix == "convolutions" else products - anatomy.weighted
    return [name for name in anatomy.kinds if name in kept]


def quantize_onnx(proto: Any, crops: Crops, batch: int, mix: str | None) -> Any:
    """An ONNX model in eight bits, its ranges from crops (N, 3, H, W).

    Weights take seven bits: with eight, processors without VNNI saturate in sums of pairs, and would answer otherwise
    than the machine on which parity was measured.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        graph = proto.graph
        quantize_static(
            proto,
            path,
            Ranges(batches_of(crops, batch)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=[*kept_float(onnx_anatomy(graph), mix), *fine_convolutions(graph, crops.shape[2])],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},  # ranges of most crops, not of the strangest
        )
        return onnx.load(path)


class Ranges:
    """What onnxruntime's calibration reads: batches of crops, once."""

    def __init__(self, batches: list[Crops]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, Crops] | None:
        """The next batch by the name of the input; None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def batches_of(crops: Crops, batch: int) -> list[Crops]:
    """Crops (N, 3, H, W) in batches, the last filled up with the first crops."""
    places = np.arange(-(-len(crops) // batch) * batch) % len(crops)
    return [crops[some] for some in places.reshape(-1, batch)]


def quantize_openvino(model: Any, crops: Crops, batch: int, mix: str | None) -> Any:
    """An OpenVINO model in eight bits, its ranges from crops (N, 3, H, W)."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    batches = batches_of(crops, batch)
    with contextlib.redirect_stdout(io.StringIO()):  # bars
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=kept_float(openvino_anatomy(model), mix), validate=False),
        )


def onnx_anatomy(graph: Any) -> Anatomy:
    """Of an ONNX graph with named nodes."""
    made_by = {output: node.name for node in graph.node for output in node.output}
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}  # no stacks: onnxruntime has none
    return Anatomy(
        kinds={node.name: node.op_type for node in graph.node},
        reads={node.name: [made_by[name] for name in node.input if name in made_by] for node in graph.node},
        weighted={node.name for node in graph.node if len(node.input) > 1 and node.input[1] in matrices},
        sinks=[made_by[name] for name in coordinate_sinks(graph) if name in made_by],
    )


def fine_convolutions(graph: Any, crop_height: int) -> list[str]:
    """Convolutions of an ONNX graph whose results have at least half as many rows as the crop."""
    dims = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    heights = {
        n.name: dims[n.output[0]][2].dim_value for n in graph.node if n.op_type == "Conv" and n.output[0] in dims
    }
    return [name for name, height in heights.items() if is_fine(height, crop_height)]


def is_fine(rows: int, crop_height: int) -> bool:
    """Whether maps of so many rows have at least half of the crop's: what all else reads, and so stays in float."""
    return 2 * rows >= crop_height


def openvino_anatomy(model: Any) -> Anatomy:
    """Of an OpenVINO model whose first output are the key points."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() != "Constant"]
    kinds = {node.get_friendly_name(): node.get_type_name() for node in nodes}
    reads = {node.get_friendly_name(): [one.get_friendly_name() for one in sources(node)] for node in nodes}
    weighted = {node.get_friendly_name() for node in nodes if len(sources(node)) > 1 and is_constant(sources(node)[1])}
    sinks = [model.outputs[0].get_node().get_friendly_name()]
    for node in nodes:
        is_index = node.get_type_name() == "Convert" and node.get_output_element_type(0).is_integral()
        if is_index or node.get_type_name() in ("Floor", "Abs"):
            sinks.append(sources(node)[0].get_friendly_name())
        elif node.get_type_name() == "GridSample":
            sinks.append(sources(node)[1].get_friendly_name())
    return Anatomy(kinds, reads, weighted, [name for name in sinks if name in kinds])


def sources(node: Any) -> list[Any]:
    """The nodes that an OpenVINO node reads."""
    return [one.get_source_output().get_node() for one in node.inputs()]


def is_constant(node: Any) -> bool:
    """Whether an OpenVINO node is a constant, or one in another form or type."""
    while node.get_type_name() in ("Convert", "Reshape", "Transpose"):
        node = sources(node)[0]
    return bool(node.get_type_name() == "Constant")
