"""Small ONNX networks that find coloured rectangles, in the output format of each family of detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64  # of the input
CELLS = 8 * 8 + 4 * 4 + 2 * 2
OTHER = 1  # the class of green rectangles; red and blue ones are people
SCORES = np.float32([[0.9], [0.7], [0.8]])  # of red, green, blue
BRIGHT = {  # (indices of red, green, blue; value that only painted pixels reach) after the family's pre-processing
    "yolox": ((2, 1, 0), 200.0),
    "yolox-decoded": ((2, 1, 0), 200.0),
    "rtmdet": ((2, 1, 0), 1.2),
    "yolo-end-to-end": ((0, 1, 2), 0.8),
    "yolo": ((0, 1, 2), 0.8),
    "detr": ((0, 1, 2), 1.2),
    "rtdetr": ((0, 1, 2), 0.8),
    "yolox-mmdeploy": ((2, 1, 0), 200.0),
    "detr-91": ((0, 1, 2), 1.2),
    "detr-92": ((0, 1, 2), 1.2),
}


class Graph:
    """Nodes, one after the other; values are names or arrays."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *values: Any, **attributes: Any) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in values]
        self.nodes.append(helper.make_node(kind, names, [f"v{len(self.nodes)}"], **attributes))
        return f"v{len(self.nodes) - 1}"

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return f"c{len(self.constants) - 1}"


def write_detector(path: Path, family: str, batch: int | str = 1, side: int | str = SIDE) -> Path:
    """A network of this family, input (batch, 3, side, side) float32."""
    graph = Graph()
    boxes, present = rectangles(graph, *BRIGHT[family])
    scores = graph("Mul", present, SCORES)  # (3, 1)
    outputs = FORMATS[family](graph, boxes, scores)
    made = helper.make_graph(
        graph.nodes,
        family,
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side, side]),
            *([helper.make_tensor_value_info("sizes", TensorProto.INT64, [batch, 2])] if family == "rtdetr" else []),
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        graph.constants,
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def rectangles(graph: Graph, channels: tuple[int, ...], least: float) -> tuple[str, str]:
    """Corners (3, 4) px of the bright pixels of red, green and blue, and whether there are any (3, 1)."""
    planes = graph("Squeeze", graph("Gather", "images", np.array(channels), axis=1), np.array([0]))
    bright = graph("Cast", graph("Greater", planes, np.float32(least)), to=TensorProto.FLOAT)  # (3, H, W)
    ends = []
    for axis in (1, 2):  # over rows: which columns; over columns: which rows
        line = graph("ReduceMax", bright, np.array([axis]), keepdims=0)  # (3, SIDE)
        far = graph("ReduceMax", graph("Mul", line, np.arange(1, SIDE + 1, dtype=np.float32)), np.array([1]))
        near = graph("ReduceMax", graph("Mul", line, np.arange(SIDE, 0, -1, dtype=np.float32)), np.array([1]))
        ends.append((graph("Sub", np.float32(SIDE), near), far))
    boxes = graph("Concat", ends[0][0], ends[1][0], ends[0][1], ends[1][1], axis=1)
    return boxes, graph("Reshape", graph("ReduceMax", bright, np.array([1, 2])), np.array([3, 1]))


def center_size(graph: Graph, boxes: str) -> tuple[str, str]:
    """Corners (3, 4) -> centres (3, 2), sizes (3, 2)."""
    low, high = (graph("Gather", boxes, np.array(columns), axis=1) for columns in ([0, 1], [2, 3]))
    return graph("Mul", graph("Add", low, high), np.float32(0.5)), graph("Sub", high, low)


def classes(count: int, person: int = 0) -> np.ndarray:
    """One row for each of red, green, blue: 1 in the column of its class."""
    rows = np.zeros((3, count), np.float32)
    rows[[0, 2], person] = 1
    rows[1, person + OTHER] = 1
    return rows


def _rows(graph: Graph, centers: str, sizes: str, scores: str, with_objectness: bool) -> str:
    """(CELLS, 4 [+ 1] + 2): the three in cells 0..2, again a little less sure and shifted in cells 3..5."""
    parts = []
    for shift, factor in ((0.0, 1.0), (0.02, 0.9)):
        sure = graph("Mul", scores, np.float32(factor))
        objectness = [sure] if with_objectness else []
        chosen = classes(2) if with_objectness else graph("Mul", sure, classes(2))
        parts.append(graph("Concat", graph("Add", centers, np.float32(shift)), sizes, *objectness, chosen, axis=1))
    rest = np.zeros((CELLS - 6, 7 if with_objectness else 6), np.float32)
    return graph("Concat", *parts, rest, axis=0)


def yolox(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
    centers, sizes = center_size(graph, boxes)
    rows = _rows(graph, centers, graph("Max", sizes, np.float32(1e-3)), scores, True)
    columns = np.concatenate([np.arange(8), np.zeros(CELLS - 8)])
    cells = np.stack([columns, np.zeros(CELLS)], axis=1).astype(np.float32)
    place = graph("Sub", graph("Div", graph("Slice", rows, *_span(0, 2)), np.float32(8)), cells)
    extent = graph(
        "Log", graph("Div", graph("Max", graph("Slice", rows, *_span(2, 4)), np.float32(1e-3)), np.float32(8))
    )
    whole = graph("Concat", place, extent, graph("Slice", rows, *_span(4, 7)), axis=1)
    return [(graph("Unsqueeze", whole, np.array([0])), TensorProto.FLOAT)]


def yolox_decoded(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
    rows = _rows(graph, *center_size(graph, boxes), scores, True)
    return [(graph("Unsqueeze", rows, np.array([0])), TensorProto.FLOAT)]


def yolo(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
    rows = _rows(graph, *center_size(graph, boxes), scores, False)
    return [(graph("Unsqueeze", graph("Transpose", rows), np.array([0])), TensorProto.FLOAT)]


def end_to_end(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
    rows = graph("Concat", boxes, scores, np.float32([[0], [OTHER], [0]]), axis=1)
    whole = graph("Concat", rows, np.zeros((297, 6), np.float32), axis=0)
    return [(graph("Unsqueeze", whole, np.array([0])), TensorProto.FLOAT)]


def rtmdet(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
    rows = graph("Unsqueeze", graph("Concat", boxes, scores, axis=1), np.array([0]))
    return [(rows, TensorProto.FLOAT), (graph("Identity", np.array([[0, OTHER, 0]])), TensorProto.INT64)]


def rtdetr(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
    """Boxes in px of the size (width, height) that the second input says."""
    fractions = graph("Div", boxes, np.float32(SIDE))
    sizes = graph("Cast", "sizes", to=TensorProto.FLOAT)  # (1, 2)
    in_px = graph("Mul", fractions, graph("Concat", sizes, sizes, axis=1))
    labels = graph("Identity", np.array([[0, OTHER, 0]]))
    rows = [graph("Unsqueeze", in_px, np.array([0])), graph("Reshape", scores, np.array([1, 3]))]
    return [(labels, TensorProto.INT64), *((row, TensorProto.FLOAT) for row in rows)]


def detr(classes_count: int, person: int) -> Any:
    def build(graph: Graph, boxes: str, scores: str) -> list[tuple[str, int]]:
        centers, sizes = center_size(graph, boxes)
        fractions = graph("Div", graph("Concat", centers, sizes, axis=1), np.float32(SIDE))
        sure = graph("Clip", scores, np.float32(1e-3), np.float32(0.999))
        logit = graph("Log", graph("Div", sure, graph("Sub", np.float32(1), sure)))  # (3, 1)
        chosen = classes(classes_count, person)
        logits = graph("Add", graph("Mul", logit, chosen), (chosen - 1) * np.float32(20))
        if classes_count == 92:  # against "no object", the last
            logits = graph("Concat", graph("Slice", logits, *_span(0, 91)), np.zeros((3, 1), np.float32), axis=1)
        rows = [graph("Unsqueeze", value, np.array([0])) for value in (logits, fractions)]
        return [(row, TensorProto.FLOAT) for row in rows]

    return build


def _span(start: int, stop: int) -> tuple[np.ndarray, ...]:
    """Inputs of Slice: columns start..stop."""
    return np.array([start]), np.array([stop]), np.array([1])


FORMATS = {
    "yolox": yolox,
    "yolox-decoded": yolox_decoded,
    "rtmdet": rtmdet,
    "yolo-end-to-end": end_to_end,
    "yolo": yolo,
    "detr": detr(2, 0),
    "rtdetr": rtdetr,
    "yolox-mmdeploy": rtmdet,
    "detr-91": detr(91, 1),
    "detr-92": detr(92, 1),
}
