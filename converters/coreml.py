"""Core ML: an ML program in a .mlpackage folder, for iOS 15 and macOS 12 on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.graph import INPUT_NAME, OUTPUT_NAMES, ExportGraph
from converters.recipe import Recipe


def convert(graph: ExportGraph, example: Tensor, path: Path, recipe: Recipe) -> dict[str, Any]:
    """Write the graph as `path` (.mlpackage) in fp32.

    The minimum target is iOS 15: there `resample` keeps its coordinates in fp32 at any precision.
    """
    import coremltools
    import numpy

    program = torch.export.export(graph, (example,)).run_decompositions({})
    model = coremltools.convert(
        program,
        inputs=[coremltools.TensorType(INPUT_NAME, tuple(example.shape), numpy.float32)],
        outputs=[coremltools.TensorType(name, dtype=numpy.float32) for name in OUTPUT_NAMES],
        minimum_deployment_target=coremltools.target.iOS15,
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(path))
    return {}
