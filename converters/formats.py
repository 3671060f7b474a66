"""The formats: one table that feeds code, errors and help. Listing it imports nothing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.errors import BackendUnavailable

if TYPE_CHECKING:
    from torch import Tensor

    from converters.graph import ExportGraph
    from converters.recipe import Recipe

INSTALL = "pip install tfpose-edge[convert]"


class Format(NamedTuple):
    """One row: what `converters.<name>` writes."""

    extension: str  # of the artifact
    input_dtype: str  # of the crops
    samplers: tuple[str, ...]  # those that it can hold, the fastest measured first
    packages: tuple[str, ...]  # Python packages that conversion and parity need
    engine: str  # that runs it, as the sidecar calls it
    precisions: tuple[str, ...] = ("fp32",)  # that it can be written in
    mixes: tuple[str, ...] = ()  # of int8 (`recipe.MIXES`), the best measured first
    half_mixes: tuple[str, ...] = ()  # of fp16

    @property
    def sampler(self) -> str:
        """The one that rewritten graphs hold unless another is asked for."""
        return self.samplers[0]

    def mixes_of(self, precision: str) -> tuple[str, ...]:
        """Names of `recipe.MIXES` that this format has at a precision, the default first."""
        return {"int8": self.mixes, "fp16": self.half_mixes}.get(precision, ())

    def packages_for(self, precision: str) -> tuple[str, ...]:
        """Those that a precision needs."""
        return (*self.packages, *(("nncf",) if precision == "int8" and self.engine == "openvino" else ()))

    def file_name(self, precision: str, delegate: str = "xnnpack") -> str:
        """`pose.onnx`, `pose-int8.xml`, `pose-coreml.pte`, ..."""
        parts = ["pose", *([] if delegate == "xnnpack" else [delegate]), *([] if precision == "fp32" else [precision])]
        return "-".join(parts) + self.extension


FORMATS: dict[str, Format] = {
    "onnx": Format(
        extension=".onnx",
        input_dtype="uint8",
        samplers=("gather", "grid_sample", "tent"),
        packages=("onnx", "onnxscript", "onnxruntime"),
        engine="onnxruntime",
        precisions=("fp32", "fp16", "int8"),
        mixes=("convolutions", "all"),
        half_mixes=("arithmetic", "storage"),
    ),
    "openvino": Format(
        extension=".xml",
        input_dtype="uint8",
        samplers=("bag", "grid_sample", "gather", "tent"),
        packages=("openvino",),
        engine="openvino",
        precisions=("fp32", "fp16", "int8"),
        mixes=("convolutions", "all"),
    ),
    "coreml": Format(
        extension=".mlpackage",
        input_dtype="float32",
        samplers=("grid_sample", "gather", "tent"),
        packages=("coremltools",),
        engine="coreml",
        precisions=("fp32", "fp16", "int8"),
        mixes=("weights", "palette"),
    ),
    "executorch": Format(
        extension=".pte",
        input_dtype="float32",
        samplers=("float_gather", "gather", "tent", "grid_sample"),
        packages=("executorch", "torchao"),
        engine="executorch",
        precisions=("fp32", "int8"),
    ),
}  # fmt: skip
"""Name -> row; `converters/<name>.py` has the function `convert(graph, example, path, recipe)`, which returns what the
sidecar shall say of the export (its key `export`: JSON values by name).

`benchmarks/formats.py` measures the order. Nothing but OpenVINO has weighted bags: ExecuTorch and Core ML refuse them,
and ONNX writes them as a loop over bags, nine times as slow as `gather` in `tiny`.
"""

NAIVE_SAMPLER = "grid_sample"  # of a model exported as it was trained


def check_installed(name: str, precision: str = "fp32") -> None:
    """BackendUnavailable with the install line unless all packages of a format can be found."""
    needed = FORMATS[name].packages_for(precision)
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise BackendUnavailable(f"{name} needs {', '.join(missing)}, not installed here: {INSTALL}")


def write_artifact(name: str, graph: ExportGraph, example: Tensor, path: Path, recipe: Recipe) -> dict[str, Any]:
    """Let `converters.<name>` write the graph, traced with `example`, as `path`; returns the sidecar's `export`."""
    facts: dict[str, Any] = importlib.import_module(f"converters.{name}").convert(graph, example, path, recipe)
    return facts
