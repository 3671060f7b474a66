"""An ONNX model in half precision, except where half is not enough.

Half: convolutions and matrix products, and whatever only passes on or adds up their results. Single: coordinates
(`converters.coordinates`), softmax, sigmoid, the statistics of normalisations, and sums with what these give. Inputs
and outputs keep their types.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.coordinates import origins, reach

LINEAR = ("Conv", "Gemm", "MatMul")
PASSES = (
    "Add", "Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Slice",
    "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operations that are as exact in half as their inputs."""
LARGE = 1024  # elements of a constant that is stored in half though an operation reads it in single
HALF_MAX = float(np.finfo(np.float16).max)


def to_half(proto: Any, weights_only: bool = False) -> Any:
    """The model with half-precision weights and arithmetic; `proto` stays as it was.

    With `weights_only` weights are stored in half and everything is computed in single precision: engines without half
    arithmetic, which compute so anyway, need not round what passes between two operations.

    Raises:
        OverflowError: a weight does not fit.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    halves = _Halves(model, weights_only)
    halves.rewrite()
    del model.graph.value_info[:]
    return model


class _Halves:
    """One rewriting."""

    def __init__(self, model: Any, weights_only: bool) -> None:
        from onnx import TensorProto

        self.weights_only = weights_only
        self.graph, self.single, self.half = model.graph, TensorProto.FLOAT, TensorProto.FLOAT16
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        typed = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in typed}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.precise = coordinate_outputs(self.graph)
        self.is_half: set[str] = set()  # tensors
        self.made: dict[tuple[str, int], str] = {}  # (tensor, type) -> its copy of that type
        self.added: list[Any] = []  # constants
        self.nodes: list[Any] = []

    def rewrite(self) -> None:
        """Change the graph in place."""
        outputs = {output.name for output in self.graph.output}
        for node in self.graph.node:
            wanted = self.half if self.fits(node) else self.single
            node.input[:] = [self.as_type(name, wanted, node) for name in node.input]
            if wanted == self.half:
                self.is_half |= {name for name in node.output if self.types.get(name) == self.single}
            self.nodes.append(node)
            for name in outputs & set(node.output) & self.is_half:
                self.cast_back(node, name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in (*self.graph.initializer, *self.added) if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def fits(self, node: Any) -> bool:
        """Whether a node computes in half."""
        if self.weights_only:
            return False
        if node.output[0] in self.precise or self.types.get(node.output[0]) != self.single:
            return False
        if node.op_type in LINEAR:
            return True
        read = [n for n in node.input if n not in self.constants and self.types.get(n) == self.single]
        return node.op_type in PASSES and bool(read) and self.is_half.issuperset(read)

    def as_type(self, name: str, wanted: int, node: Any) -> str:
        """The tensor `name`, or a copy of the wanted type if it is a float of the other one."""
        if self.types.get(name) != self.single or (name not in self.constants and self.is_half_as(name, wanted)):
            return name
        if name in self.constants:
            return self.constant_as_type(name, wanted, node)
        return self.cast(name, wanted)

    def is_half_as(self, name: str, wanted: int) -> bool:
        return (name in self.is_half) == (wanted == self.half)

    def constant_as_type(self, name: str, wanted: int, node: Any) -> str:
        """A constant in half for who wants half; in single, but stored in half, where it is large and no coordinate."""
        is_small = int(np.prod(self.constants[name].dims)) < LARGE
        if wanted == self.single and (is_small or node.output[0] in self.precise):
            return name
        stored = self.stored_in_half(name)
        return stored if wanted == self.half else self.cast(stored, self.single)

    def stored_in_half(self, name: str) -> str:
        """Name of the half-precision copy of an initializer, made at the first call."""
        from onnx import numpy_helper

        key = (name, self.half)
        if key not in self.made:
            value = numpy_helper.to_array(self.constants[name])
            if value.size and float(np.abs(value).max()) > HALF_MAX:
                raise OverflowError(f"{name} has values up to {np.abs(value).max():.3g}; half holds {HALF_MAX:.3g}")
            self.made[key] = f"{name}.half"
            self.added.append(numpy_helper.from_array(value.astype(np.float16), self.made[key]))
        return self.made[key]

    def cast(self, name: str, wanted: int) -> str:
        """Name of a tensor cast to an ONNX type, one cast for all who want it."""
        from onnx import helper

        key = (name, wanted)
        if key not in self.made:
            self.made[key] = f"{name}.{'half' if wanted == self.half else 'single'}"
            self.nodes.append(helper.make_node("Cast", [name], [self.made[key]], f"cast_{self.made[key]}", to=wanted))
        return self.made[key]

    def cast_back(self, node: Any, name: str) -> None:
        """Give an output of the graph, computed in half, its type back."""
        from onnx import helper

        node.output[:] = [f"{name}.raw" if one == name else one for one in node.output]
        self.nodes.append(helper.make_node("Cast", [f"{name}.raw"], [name], f"cast_{name}", to=self.single))
        self.is_half.discard(name)


def coordinate_outputs(graph: Any) -> set[str]:
    """Tensors of an ONNX graph whose operations compute coordinates or follow from them."""
    made_by = {output: node.output[0] for node in graph.node for output in node.output}
    reads = {n.output[0]: [made_by[i] for i in n.input if i in made_by] for n in graph.node}
    linear = {n.output[0] for n in graph.node if n.op_type in LINEAR}
    sinks = {made_by[name] for name in coordinate_sinks(graph) if name in made_by}
    return reach(reads, origins(reads, sinks, linear), linear)


def coordinate_sinks(graph: Any) -> list[str]:
    """Tensors that become indices, that are read by grid samplers or tent functions, and the key points."""
    from onnx import TensorProto

    found = [graph.output[0].name]
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None) if node.op_type == "Cast" else None
        if to in (TensorProto.INT32, TensorProto.INT64) or node.op_type in ("Floor", "Abs"):
            found.append(node.input[0])
        elif node.op_type == "GridSample":
            found.append(node.input[1])
    return found
