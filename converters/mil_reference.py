"""A reference evaluator of saved Core ML packages, for machines without Core ML.

It reads program and weights back from disk and runs them operation by operation in torch, in the precision that the
program states for each result: what is stated as half is rounded to half, from arguments that were. Inside of one
operation sums are in single precision, as in hardware with wide accumulators. So it checks the file, not the
conversion's intentions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from converters.errors import ConversionError
from converters.graph import INPUT_NAME, OUTPUT_NAMES
from converters.mil_operations import DTYPES, OPERATIONS, Unsupported


class MilReference:
    """A back end in the runtime's sense, for .mlpackage files anywhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.function = load_program(path).functions["main"]
        self.images = image_inputs(path)
        unknown = sorted({op.op_type for op in self.function.operations} - OPERATIONS.keys() - {"const"})
        if unknown:
            raise ConversionError(f"{path}: the reference evaluator does not know the operation {', '.join(unknown)}")
        self.constants = {
            op.outputs[0]: _constant(op.outputs[0]) for op in self.function.operations if op.op_type == "const"
        }

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) float32, uint8 where the package takes images -> key points (N, K, 2), scores (N, K)."""
        with one_thread():
            outputs = self.run({INPUT_NAME: self.as_fed(crops)})
        missing = [name for name in OUTPUT_NAMES if name not in outputs]
        if missing:
            raise ConversionError(f"{self.path}: has no output {', '.join(missing)}, only {', '.join(outputs)}")
        keypoints, scores = (outputs[name].float().numpy() for name in OUTPUT_NAMES)
        return keypoints, scores

    def as_fed(self, crops: NDArray[Any]) -> Tensor:
        """What Core ML makes of crops (N, 3, H, W): an image holds whole numbers, in its own order of colours."""
        order = self.images.get(INPUT_NAME)
        if order is None:
            return torch.from_numpy(crops)
        if crops.shape[0] != 1 or crops.dtype != np.uint8:
            raise ConversionError(f"{self.path}: takes one uint8 image, not {crops.dtype} crops {crops.shape}")
        return torch.from_numpy(crops[:, ["RGB".index(colour) for colour in order]]).float()

    @torch.no_grad()
    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """All outputs of the program, by name, for its inputs by name."""
        values: dict[Any, Any] = dict(self.constants)
        for name, variable in self.function.inputs.items():
            values[variable] = inputs[name].to(_dtype(variable))
        for operation in self.function.operations:
            if operation.op_type != "const":
                values.update(zip(operation.outputs, self._evaluate(operation, values), strict=True))
        return {variable.name: values[variable] for variable in self.function.outputs}

    def close(self) -> None:
        """Drop the program."""
        del self.function, self.constants

    def _evaluate(self, operation: Any, values: dict[Any, Any]) -> list[Tensor]:
        arguments = {
            name: [values[v] for v in variable] if isinstance(variable, (list, tuple)) else values[variable]
            for name, variable in operation.inputs.items()
            if variable is not None
        }
        try:
            result = OPERATIONS[operation.op_type](**{name: _wide(value) for name, value in arguments.items()})
        except (Unsupported, TypeError, RuntimeError) as error:
            place = f"operation {operation.op_type} ({operation.name})"
            raise ConversionError(f"{self.path}: {place}: the reference evaluator cannot run it: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        found, stated = ([tuple(one.shape) for one in all] for all in (results, operation.outputs))
        if found != stated:
            raise ConversionError(f"{self.path}: {operation.name} is {found}, not {stated}")
        return [one.to(_dtype(output)) for one, output in zip(results, operation.outputs, strict=True)]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A program is hundreds of small operations: on a busy machine, threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_program(path: Path) -> Any:
    """The MIL program of a saved package, its weights read from the package's own files."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel

    try:
        model = MLModel(str(path), skip_model_load=True)
        spec = model.get_spec()
        return load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    except Exception as error:
        raise ConversionError(f"{path}: not readable as a Core ML package: {error}") from error


def image_inputs(path: Path) -> dict[str, str]:
    """The inputs of a package that are images, by name, with their order of colours: RGB or BGR."""
    from coremltools.models.utils import load_spec

    inputs = [one for one in load_spec(str(path)).description.input if one.type.WhichOneof("Type") == "imageType"]
    names = {one.name: one.type.imageType.ColorSpace.Name(one.type.imageType.colorSpace) for one in inputs}
    if not set(names.values()) <= {"RGB", "BGR"}:
        raise ConversionError(f"{path}: the reference evaluator knows RGB and BGR images, not {names}")
    return names


def _wide(value: Any) -> Any:
    """Half-precision arguments in single, exactly; lists too, anything else as it is."""
    if isinstance(value, list):
        return [_wide(one) for one in value]
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _constant(variable: Any) -> Any:
    """Numbers as tensors of the stated type, texts as they are."""
    if isinstance(variable.val, str):
        return variable.val
    return torch.from_numpy(np.array(variable.val)).to(_dtype(variable))  # a copy: the weights file is read-only


def _dtype(variable: Any) -> torch.dtype:
    from coremltools.converters.mil.mil import types

    return DTYPES[types.builtin_to_string(variable.dtype)]
