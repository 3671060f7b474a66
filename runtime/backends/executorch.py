"""ExecuTorch programs (.pte) on CPU. The one file here that imports torch: executorch.runtime does."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ModelFileError


class ThreadPool:
    """The engine's threads, which all programs of this interpreter share: the last one opened decides how many.

    A loaded method keeps the address of the pool it was loaded with, and resizing frees that pool. So resizing waits
    for the run under way, and methods are loaded again before they run with another pool. One lock for all costs
    nothing: a run holds the interpreter's own.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held by a run, a load and a resizing
        self.number = 0  # of the present pool


POOL = ThreadPool()


class ExecuTorchBackend:
    """The program's `forward` method; its memory plan serves one call at a time."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        with quiet():
            import torch
            from executorch.runtime import Runtime, Verification

        self.torch = torch
        self.method: Any = None
        self.pool = 0  # the one that the method was loaded with
        set_threads(threads)
        try:
            # the program borrows the runtime, the method borrows the program
            self.program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            with POOL.lock:
                self._load_method()
        except Exception as error:
            raise ModelFileError(f"{path}: executorch cannot load it: {error}") from error

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) float32, contiguous -> key points (N, K, 2), fractions of the crop; scores (N, K)."""
        tensor = self.torch.from_numpy(np.ascontiguousarray(crops))  # the engine ignores strides
        with POOL.lock:
            if self.pool != POOL.number:
                self._load_method()
            outputs = self.method([tensor])
            keypoints, scores = (output.numpy().copy() for output in outputs)  # they live in the method's memory
        return keypoints, scores

    def _load_method(self) -> None:
        """Load `forward` with the present pool; past `Program.load_method`, which would give the first one again."""
        self.method = None  # its memory first
        self.method, self.pool = self.program._program.load_method("forward"), POOL.number

    def close(self) -> None:
        """Drop the method and the program."""
        del self.method, self.program


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and its companions log while they are imported, such as libraries of theirs for GPUs."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def set_threads(threads: int) -> None:
    """Size the engine's thread pool, when nobody computes with it."""
    from executorch.extension.pybindings import portable_lib

    with POOL.lock:
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
            POOL.number += 1
