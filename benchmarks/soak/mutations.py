"""Changed artifacts: with the check of their bytes, all refused; without it, none may do more harm than an error.

The check is switched off by replacing `Sidecar.verify`; the runtime itself has no such switch. Mutants run in children
of a child that has the engine loaded, one each: `python -m benchmarks.soak.mutations ARTIFACT COUNT`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import runtime
from runtime import pose as pose_module
from runtime.backends import onnxruntime, open_backend, openvino
from runtime.sidecar import Sidecar, artifact_files, sidecar_path

TIMEOUT_S = 120.0  # of a mutant
MEMORY_BYTES = 24 * 2**30  # address space of a mutant
WORKS, REFUSED, OTHER = 0, 3, 9  # exit codes of a mutant's process


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """One change of a random kind: bits, bytes, a block, a cut, an insertion, a repetition. Never the same content."""
    changed, length = bytearray(content), len(content)
    start = int(random.integers(0, length))
    size = int(random.integers(1, 64))
    kind = int(random.integers(0, 7))
    if kind == 0:
        changed[start] ^= 1 << int(random.integers(0, 8))
    elif kind == 1:
        changed[start] = (changed[start] + int(random.integers(1, 256))) % 256
    elif kind == 2:
        changed[start : start + size] = random.bytes(len(changed[start : start + size]))
    elif kind == 3:
        del changed[start:]
    elif kind == 4:
        del changed[start : start + size]
    elif kind == 5:
        changed[start:start] = random.bytes(size)
    else:
        changed[start:start] = changed[max(start - size, 0) : start + 1]
    return bytes(changed) if changed != content else content + b"\0"


def write_mutant(path: Path, folder: Path, random: np.random.Generator) -> Path:
    """A copy of the artifact with its sidecar in which one file is changed."""
    files = artifact_files(path)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.parent / name, folder / name)
    shutil.copy(sidecar_path(path), sidecar_path(folder / path.name))
    victim = folder / files[int(random.integers(0, len(files)))]
    victim.write_bytes(mutate(victim.read_bytes(), random))
    return folder / path.name


def count_refused(path: Path, count: int, seed: int = 0) -> int:
    """How many of `count` mutants `Pose` refuses before their engine is asked to open them."""
    random, refused = np.random.default_rng(seed), 0

    def never(*arguments: object) -> None:
        raise AssertionError("an engine sees a changed artifact")

    pose_module.open_backend = never  # type: ignore[assignment]
    try:
        for _ in range(count):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    runtime.Pose(write_mutant(path, Path(folder), random))
                except runtime.ModelFileError:
                    refused += 1
    finally:
        pose_module.open_backend = open_backend
    return refused


def try_unchecked(path: Path, count: int, seed: int = 0) -> dict[str, int]:
    """What became of `count` mutants that nobody checked: works, refused, crashed, hung, other exception."""
    command = [sys.executable, "-m", "benchmarks.soak.mutations", str(path), str(count), str(seed)]
    paths = os.pathsep.join(filter(None, [os.getenv("PYTHONPATH"), *sys.path]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, errors="replace")
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {child.stderr[-2000:]}")
    outcomes: dict[str, int] = json.loads(child.stdout.splitlines()[-1])
    return outcomes


def try_all(path: Path, count: int, seed: int) -> Counter[str]:
    """In the child: load the engine once, then a process for each mutant."""
    load_engine(path)
    Sidecar.verify = lambda self, artifact: None  # type: ignore[method-assign]
    random, outcomes = np.random.default_rng(seed), Counter[str]()
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            outcomes[try_one(write_mutant(path, Path(folder), random))] += 1
    return outcomes


def load_engine(path: Path) -> None:
    """Import what the back end imports, and start no thread."""
    if path.suffix == ".onnx":
        onnxruntime.import_engine()
    elif path.suffix == ".xml":
        openvino.import_engine()
    else:
        import executorch.runtime  # noqa: F401
        import torch

        torch.set_num_threads(1)


def try_one(path: Path) -> str:
    """Open and run a mutant in a process of its own."""
    child = os.fork()
    if child == 0:
        os._exit(run_mutant(path))
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline_s:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hung"
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return f"crashed with {signal.Signals(os.WTERMSIG(status)).name}"
    return {WORKS: "works", REFUSED: "ModelFileError"}.get(os.WEXITSTATUS(status), "other exception")


def run_mutant(path: Path) -> int:
    """The exit code that says what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        with runtime.Pose(path, threads=1) as pose:
            pose(np.full((64, 48, 3), 128, dtype=np.uint8))
    except runtime.ModelFileError:
        return REFUSED
    except BaseException as error:  # whatever it is, it is the finding
        print(f"{path.name}: {error!r}", file=sys.stderr, flush=True)
        return OTHER
    return WORKS


if __name__ == "__main__":
    print(json.dumps(try_all(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
