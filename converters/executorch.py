"""ExecuTorch: `pose.pte`, lowered to XNNPACK (or another delegate) where it can be, ExecuTorch's kernels elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from converters.delegation import DELEGATES, Delegation, count
from converters.graph import ExportGraph
from converters.heartbeat import heartbeat
from converters.pt2e import quantise
from converters.recipe import Recipe
from converters.xnnpack_forms import delegable_norms
from converters.xnnpack_passes import fold_constants, forget_origins, rewrite


def convert(graph: ExportGraph, example: Tensor, path: Path, recipe: Recipe) -> dict[str, Any]:
    """Write the graph as `path` (.pte); returns how it was divided, for the sidecar's `export`."""
    with heartbeat(lambda line: recipe.progress(f"executorch: {line}")) as stage:
        stage("tracing")
        program = export(graph, example, recipe, stage)
        stage(f"lowering to {recipe.delegate}, which takes minutes for large networks")
        buffer, delegation = lower(program, recipe.delegate)
    recipe.progress(f"executorch: {delegation}")
    path.write_bytes(buffer)
    return {"delegation": delegation.as_json()}


def export(
    graph: ExportGraph, example: Tensor, recipe: Recipe, stage: Callable[[str], None] = lambda name: None
) -> ExportedProgram:
    """Trace the graph in the form that suits its delegate, and quantise it if the recipe says so."""
    if recipe.delegate != "xnnpack":
        return fold_constants(torch.export.export(graph, (example,)))
    graph = copy.deepcopy(graph)
    delegable_norms(graph)
    form: nn.Module = graph
    if recipe.precision == "int8":
        assert recipe.calibration is not None
        stage(f"ranges of int8 from {len(recipe.calibration)} crops")
        form = quantise(graph, example, recipe.calibration)
    return rewrite(torch.export.export(form, (example,)))


def lower(program: ExportedProgram, delegate: str) -> tuple[bytes, Delegation]:
    """The finished file's bytes, and what became of the operations."""
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        forget_origins(program),
        partitioner=DELEGATES[delegate].partitioners(),
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    delegation = count(lowered, delegate)  # before memory is planned, which adds nodes
    return lowered.to_executorch().buffer, delegation
