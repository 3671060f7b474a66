"""ExecuTorch programs (.pte) on CPU. The one file here that imports torch: executorch.runtime does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ModelFileError

THREADPOOL = threading.Lock()  # the engine's thread pool is one per program


class ExecuTorchBackend:
    """The program's `forward` method behind a lock: its memory plan serves one call at a time."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        import torch
        from executorch.runtime import Runtime, Verification

        self.torch = torch
        self.lock = threading.Lock()
        set_threads(threads)
        try:
            # the program borrows the runtime, the method borrows the program
            self.program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            self.method = self.program.load_method("forward")
        except Exception as error:
            raise ModelFileError(f"{path}: executorch cannot load it: {error}") from error
        if self.method is None:
            raise ModelFileError(f"{path}: the program has no method 'forward'")

    def infer(self, crops: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Crops (N, 3, H, W) float32, contiguous -> key points (N, K, 2), fractions of the crop; scores (N, K)."""
        tensor = self.torch.from_numpy(np.ascontiguousarray(crops))  # the engine ignores strides
        with self.lock:
            outputs = self.method.execute([tensor])
            keypoints, scores = (output.numpy().copy() for output in outputs)  # they live in the method's memory
        return keypoints, scores

    def close(self) -> None:
        """Drop the method and the program."""
        del self.method, self.program


def set_threads(threads: int) -> None:
    """Size the engine's thread pool, which all programs of this interpreter share: the last one opened decides."""
    from executorch.extension.pybindings import portable_lib

    with THREADPOOL:
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
