"""Core ML: an ML program in a .mlpackage folder, for iOS 15 and macOS 12 on; with int8 weights for iOS 16 and macOS 13.

Below single precision, what computes coordinates or follows from them stays single (`converters.coordinates`), and so
do sums over many numbers, which half would overflow. The op selector also holds where `resample` would take half
coordinates: from iOS 16 on. int8 is about weights: they are stored in eight bits, or as indices of a palette of 64
values, and computed with in half.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.coordinates import origins, reach
from converters.graph import INPUT_NAME, OUTPUT_NAMES, ExportGraph
from converters.recipe import Recipe

LINEAR = ("conv", "linear", "matmul")
SUMS = ("reduce_mean", "reduce_sum", "reduce_sum_square", "square", "sqrt", "rsqrt", "instance_norm", "batch_norm")
PALETTE_BITS = 6
SMALL = 2048  # elements of a weight that stays as it is


def convert(graph: ExportGraph, example: Tensor, path: Path, recipe: Recipe) -> dict[str, Any]:
    """Write the graph as `path` (.mlpackage).

    The minimum target is iOS 15, where `resample` keeps its coordinates in fp32 at any precision; iOS 16 with int8.
    """
    import coremltools as ct
    import numpy as np

    program = torch.export.export(graph, (example,)).run_decompositions({})
    shape = tuple(example.shape)
    is_image = recipe.image_input
    crops = (
        ct.ImageType(INPUT_NAME, shape, color_layout=ct.colorlayout.RGB)
        if is_image
        else ct.TensorType(INPUT_NAME, shape, np.float32)
    )
    target = ct.target.iOS16 if recipe.precision == "int8" else ct.target.iOS15
    model = ct.convert(
        program,
        inputs=[crops],
        outputs=[ct.TensorType(name, dtype=np.float32) for name in OUTPUT_NAMES],
        minimum_deployment_target=target,
        compute_precision=compute_precision(recipe.precision),
        skip_model_load=True,
    )
    if recipe.precision == "int8":
        model = with_small_weights(model, recipe.mix)
    model.save(str(path))
    make_readable(path)
    return {"minimum_target": target.name, "image_input": is_image, "mix": recipe.mix, "operations": count(model)}


def make_readable(package: Path) -> None:
    """Give the files of a package, which coremltools makes for their owner only, the rights of files made here."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (package, *package.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def count(model: Any) -> int:
    """Operations of a model, constants left out."""
    (block,) = model.get_spec().mlProgram.functions["main"].block_specializations.values()
    return sum(operation.type != "const" for operation in block.operations)


def compute_precision(precision: str) -> Any:
    """coremltools' name for it: single, or half with coordinates in single."""
    import coremltools as ct

    if precision == "fp32":
        return ct.precision.FLOAT32
    precise: set[Any] = set()

    def takes_half(operation: Any) -> bool:
        """coremltools' question about each operation of the program."""
        if not precise:  # first call: nothing has been changed yet
            precise.update(single_operations(operation.enclosing_block))
        return operation not in precise

    return ct.transform.FP16ComputePrecision(takes_half)


def single_operations(block: Any) -> set[Any]:
    """The operations of a program that must stay in single precision."""
    operations = {id(operation): operation for operation in block.operations}
    reads = {key: [id(one) for one in sources(operation)] for key, operation in operations.items()}
    linear = {key for key, operation in operations.items() if operation.op_type in LINEAR}
    samplers = {key for key, operation in operations.items() if operation.op_type == "resample"}
    found = reach(reads, origins(reads, coordinate_sinks(block), linear) | samplers, linear)
    return {o for key, o in operations.items() if key in found or o.op_type in SUMS}


def sources(operation: Any) -> list[Any]:
    """The operations that an operation reads, constants left out."""
    given = [v for one in operation.inputs.values() for v in (one if isinstance(one, (list, tuple)) else [one])]
    return [v.op for v in given if v is not None and v.op is not None and v.op.op_type != "const"]


def coordinate_sinks(block: Any) -> list[int]:
    """Ids of the operations that give a coordinate: an index, a grid, a tent's distance, or the key points."""
    found = [block.outputs[0].op]
    for operation in block.operations:
        if operation.op_type == "resample":
            found.append(operation.coordinates.op)
        elif operation.op_type in ("floor", "abs") or (operation.op_type == "cast" and "int" in operation.dtype.val):
            found.append(operation.x.op)
    return [id(operation) for operation in found if operation is not None]


def with_small_weights(model: Any, mix: str | None) -> Any:
    """The model with weights in eight bits, or as indices of palettes; those of coordinates stay."""
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = model.get_spec()
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    kept = {operation.name: None for operation in single_operations(program.functions["main"])}
    if mix == "palette":
        palette = cto.OpPalettizerConfig(mode="kmeans", nbits=PALETTE_BITS, weight_threshold=SMALL)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=palette, op_name_configs=kept))
    linear = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=SMALL)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=linear, op_name_configs=kept))
