"""The engines: one table from file extension to back end. Listing it imports nothing.

A back end is a class with three methods: `__init__(path, device, threads)`, `infer(crops)`, `close()`. It knows nothing
of boxes, skeletons or sidecars, and imports its engine inside `__init__`.
"""

from __future__ import annotations

import importlib
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BackendUnavailable, InputError, ModelFileError

__all__ = ["ENGINES", "Backend", "Engine", "available_cpus", "check_threads", "engine_for", "open_backend"]


CGROUP = Path("/sys/fs/cgroup")


class Backend(Protocol):
    """What `Pose` needs of an engine."""

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W), contiguous, RGB 0..255 -> key points (N, K, 2), fractions of the crop; scores (N, K)."""

    def close(self) -> None:
        """Give the engine's memory back; no `infer` afterwards."""


class Engine(NamedTuple):
    """One row of the table."""

    name: str  # as pip and the sidecar call it
    extension: str  # of the artifact
    class_name: str  # in the module runtime.backends.<name>
    devices: tuple[str, ...]  # legal values of `device`
    install: str  # what makes it importable


ENGINES = (
    Engine("onnxruntime", ".onnx", "OnnxRuntimeBackend", ("cpu", "cuda", "coreml"), "pip install tfpose-edge"),
    Engine("openvino", ".xml", "OpenVinoBackend", ("cpu", "gpu", "npu"), "pip install tfpose-edge[openvino]"),
    Engine("executorch", ".pte", "ExecuTorchBackend", ("cpu",), "pip install tfpose-edge[executorch]"),
    Engine("coreml", ".mlpackage", "CoreMLBackend", ("cpu", "gpu", "ane", "all"), "pip install tfpose-edge[coreml]"),
)


def engine_for(path: Path) -> Engine:
    """The engine that reads this artifact, by extension; ModelFileError with the legal ones for any other."""
    for engine in ENGINES:
        if path.suffix == engine.extension:
            return engine
    legal = ", ".join(engine.extension for engine in ENGINES)
    hint = "; `python -m converters` makes artifacts of a checkpoint" if path.suffix == ".safetensors" else ""
    raise ModelFileError(f"{path}: not an artifact: the extension is '{path.suffix}', legal are {legal}{hint}")


def open_backend(path: Path, device: str = "cpu", threads: int | None = None) -> Backend:
    """Load an artifact, whose sidecar has been checked, into its engine.

    Args:
        device: one of the engine's devices; never replaced by another one.
        threads: CPU threads of the engine; None = the CPUs that this program may use.
    Raises:
        BackendUnavailable: unknown device, engine not installed, device absent.
        ModelFileError: the engine cannot load the file.
    """
    engine = engine_for(path)
    if device not in engine.devices:
        raise BackendUnavailable(f"{engine.name} has no device '{device}', legal are {', '.join(engine.devices)}")
    module = importlib.import_module(f"runtime.backends.{engine.name}")
    try:
        backend: Backend = getattr(module, engine.class_name)(path, device, check_threads(threads))
    except ImportError as error:
        message = f"{path.name} needs {engine.name}, which cannot be imported ({error}): {engine.install}"
        raise BackendUnavailable(message) from error
    return backend


def check_threads(threads: int | None) -> int:
    """The number of CPU threads to use: at least 1, by default all CPUs that this program may use."""
    if threads is None:
        return available_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}, legal are None and integers from 1 on")
    return threads


def available_cpus() -> int:
    """CPUs that this program may run on: its affinity and, in a container, its quota; at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(math.ceil(min(cpus, cpu_quota())), 1)


def cpu_quota() -> float:
    """How many CPUs' time the control group grants (Linux); infinity where nothing limits it."""
    try:
        version_2 = CGROUP.joinpath("cpu.max").read_text().split()
        if len(version_2) == 2:
            return float(version_2[0].replace("max", "inf")) / float(version_2[1])
    except (OSError, ValueError):
        pass  # another system, or version 1
    try:
        quota, period = (
            float(CGROUP.joinpath("cpu", f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
