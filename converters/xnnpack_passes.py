"""Passes over an exported program that leave less outside of XNNPACK: each exact, each a function on the graph.

They work on what `torch.export.export` gives, before ExecuTorch's own lowering, so a program can be run in torch after
any of them. New ones are a function and a line in `PASSES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

aten = torch.ops.aten
SELF_AND_SCALAR = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.rsub.Scalar)
WITHOUT_EFFECT = (
    aten.alias.default, aten.detach.default, aten.detach_.default, aten.lift_fresh_copy.default, aten.to.dtype,
    aten.to.dtype_layout, aten._to_copy.default, aten.expand.default, aten.contiguous.default, aten.dropout.default,
)  # fmt: skip
UNIT_AXES = (aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
SPLITS = (aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default, aten.chunk.default)


def float_scalars(graph: fx.Graph) -> None:
    """Write whole numbers in float arithmetic as floats: an integer becomes a tensor and a cast at every use."""
    for node in graph.nodes:
        if node.target in SELF_AND_SCALAR and node.meta["val"].is_floating_point():
            node.args = tuple(float(arg) if type(arg) is int else arg for arg in node.args)


def drop_checks(graph: fx.Graph) -> None:
    """Remove the exporter's assertions about shapes and types, which are static here."""
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)


def drop_copies(graph: fx.Graph) -> None:
    """Remove casts, broadcasts and copies whose result is their input; `dropout` of an exported graph is one."""
    for node in list(graph.nodes):
        if node.target in WITHOUT_EFFECT and _same(node.meta["val"], node.args[0].meta["val"]):
            _replace(node, node.args[0])


def unstack(graph: fx.Graph) -> None:
    """Let `stack(tensors)[i]` be the tensor itself: key points of all layers are stacked, the last one's are wanted."""
    for node in list(graph.nodes):
        if node.target is aten.select.int and getattr(node.args[0], "target", None) is aten.stack.default:
            tensors, axis = node.args[0].args[0], (*node.args[0].args, 0)[1]
            if axis == node.args[1] == 0:
                _replace(node, tensors[node.args[2]])


def select_by_slices(graph: fx.Graph) -> None:
    """Write `x[..., i]` as a slice and a view."""
    for node in list(graph.nodes):
        if node.target is aten.select.int and node.meta["val"].is_floating_point():
            x, axis, index = node.args
            shape = list(node.meta["val"].shape)
            start = index % x.meta["val"].shape[axis]
            with graph.inserting_before(node):
                part = _call(graph, aten.slice.Tensor, x, axis, start, start + 1)
                _replace(node, _call(graph, aten.reshape.default, part, shape))


def unbind_by_slices(graph: fx.Graph) -> None:
    """Write the parts of an `unbind` as slices and views."""
    for node in list(graph.nodes):
        if node.target is not aten.unbind.int or not node.meta["val"][0].is_floating_point():
            continue
        axis = node.args[1] if len(node.args) > 1 else 0
        for user in list(node.users):
            with graph.inserting_before(user):
                part = _call(graph, aten.slice.Tensor, node.args[0], axis, user.args[1], user.args[1] + 1)
                _replace(user, _call(graph, aten.reshape.default, part, list(user.meta["val"].shape)))
        graph.erase_node(node)


def split_by_slices(graph: fx.Graph) -> None:
    """Write the parts of a split as slices."""
    for node in list(graph.nodes):
        if node.target not in SPLITS:
            continue
        if len(node.meta["val"]) > 1 and not node.meta["val"][0].is_floating_point():
            continue
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        sizes = [part.shape[axis] for part in node.meta["val"]]
        for user in list(node.users):
            if len(sizes) == 1:  # all of it
                _replace(user, node.args[0])
                continue
            start = sum(sizes[: user.args[1]])
            with graph.inserting_before(user):
                part = _call(graph, aten.slice.Tensor, node.args[0], axis, start, start + sizes[user.args[1]])
            _replace(user, part)
        graph.erase_node(node)


def view_unit_axes(graph: fx.Graph) -> None:
    """Write `squeeze` and `unsqueeze` as views."""
    for node in list(graph.nodes):
        if node.target in UNIT_AXES and node.meta["val"].is_floating_point():
            with graph.inserting_before(node):
                _replace(node, _call(graph, aten.reshape.default, node.args[0], list(node.meta["val"].shape)))


def sum_by_linear(graph: fx.Graph) -> None:
    """Write a sum over the last axis as a linear layer of ones."""
    for node in list(graph.nodes):
        if node.target is aten.sum.dim_IntList and node.meta["val"].is_floating_point():
            shape = node.args[0].meta["val"].shape
            if [axis % len(shape) for axis in node.args[1]] != [len(shape) - 1]:
                continue
            with graph.inserting_before(node):
                ones = _call(graph, aten.full.default, [1, shape[-1]], 1.0)
                total = _call(graph, aten.linear.default, node.args[0], ones)
                _replace(node, _call(graph, aten.reshape.default, total, list(node.meta["val"].shape)))


def matmul_by_bmm(graph: fx.Graph) -> None:
    """Write a product of stacks of matrices as one of plain rank 3, without the broadcast copies of `matmul`."""
    for node in list(graph.nodes):
        if node.target is not aten.matmul.default:
            continue
        shapes = [list(arg.meta["val"].shape) for arg in node.args]
        if len(shapes[0]) < 3 or shapes[0][:-2] != shapes[1][:-2]:
            continue
        with graph.inserting_before(node):
            stacks = [
                _call(graph, aten.reshape.default, x, [-1, *shape[-2:]])
                for x, shape in zip(node.args, shapes, strict=True)
            ]
            product = _call(graph, aten.bmm.default, *stacks)
            _replace(node, _call(graph, aten.reshape.default, product, list(node.meta["val"].shape)))


def expand_by_product(graph: fx.Graph) -> None:
    """Write a broadcast copy as a product with ones."""
    for node in list(graph.nodes):
        if node.target is aten.expand.default and node.meta["val"].is_floating_point():
            with graph.inserting_before(node):
                ones = _call(graph, aten.full.default, list(node.meta["val"].shape), 1.0)
                _replace(node, _call(graph, aten.mul.Tensor, node.args[0], ones))


PASSES: dict[str, Callable[[fx.Graph], None]] = {
    "float_scalars": float_scalars,
    "drop_checks": drop_checks,
    "drop_copies": drop_copies,
    "unstack": unstack,
    "select_by_slices": select_by_slices,
    "unbind_by_slices": unbind_by_slices,
    "split_by_slices": split_by_slices,
    "view_unit_axes": view_unit_axes,
    "sum_by_linear": sum_by_linear,
    "matmul_by_bmm": matmul_by_bmm,
    "expand_by_product": expand_by_product,
}
"""Name -> pass, in the order of application."""


def rewrite(program: ExportedProgram, names: Sequence[str] = tuple(PASSES)) -> ExportedProgram:
    """Apply passes to a program in place, then compute what depends on constants only; returns the program."""
    graph = program.graph
    for name, change in PASSES.items():
        if name in names:
            change(graph)
    graph.eliminate_dead_code()
    outputs = next(node for node in graph.nodes if node.op == "output").args[0]
    for spec, node in zip(program.graph_signature.output_specs, outputs, strict=True):
        spec.arg = TensorArgument(name=node.name)
    program.graph_module.recompile()
    return fold_constants(program)


def fold_constants(program: ExportedProgram) -> ExportedProgram:
    """Compute what depends on weights and constants only, and store it; quantised weights stay as they are."""
    from executorch.exir.operator.util import _QUANT_PRIMITIVES
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    return constant_prop_pass(program, custom_skip_targets=set(_QUANT_PRIMITIVES))


def forget_origins(program: ExportedProgram) -> ExportedProgram:
    """Drop what each node says of the Python code it comes from: every later pass would copy it, node by node."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(key, None)
    return program


def _call(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    """A new node whose value is computed on shapes alone."""
    node = graph.call_function(target, args)
    values = fx.map_arg(args, lambda arg: arg.meta["val"])
    node.meta["val"] = target(*values)
    return node


def _replace(node: fx.Node, other: fx.Node) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.stride() == other.stride()
