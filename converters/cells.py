"""What is measured of each artifact of a report: one cell per format, precision and mix.

A cell that fails says why and does not stop the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.conversion import Converted, Options, Progress, check_all, convert_one
from converters.formats import FORMATS
from converters.source import Source
from runtime.backends import Backend, open_backend
from runtime.errors import PoseError
from runtime.sidecar import Sidecar

CHILD_TIMEOUT_S = 300
PAUSE_S, MOST_PAUSES = 0.01, 50  # in which other threads come to rest


@dataclass
class Cell:
    """One artifact and what is known of it; None is what could not be measured."""

    format: str
    precision: str
    mix: str | None
    error: str | None = None
    """Why there is no artifact."""
    notes: list[str] = field(default_factory=list)
    """Why something of it is missing, or is over a limit."""
    converted: Converted | None = None
    export: dict[str, Any] = field(default_factory=dict)
    """What the format said of it: operations, partitions, ..."""
    weight: dict[str, float] | None = None
    """Of `runtime.weigh`, in a process of its own."""
    latency: dict[int, dict[str, float]] = field(default_factory=dict)
    """Threads -> p50_ms and p95_ms by the clock, cpu_ms, the median of processor time."""

    @property
    def name(self) -> str:
        """`onnx int8 all`."""
        return " ".join(part for part in (self.format, self.precision, self.mix) if part)


def cells_of(formats: Sequence[str], precisions: Sequence[str], every_mix: bool) -> Iterator[Cell]:
    """All that can be written of these, int8 in every mix or in the best one; a cell with the reason for the rest."""
    for name in formats:
        row = FORMATS[name]
        for precision in precisions:
            if precision not in row.precisions:
                yield Cell(name, precision, None, error=f"not written; {name} has {', '.join(row.precisions)}")
                continue
            mixes = row.mixes[: None if every_mix else 1] if precision == "int8" else ()
            yield from (Cell(name, precision, mix) for mix in mixes or (None,))


def make(cell: Cell, source: Source, folder: Path, options: Options, progress: Progress) -> None:
    """Convert into a folder of the cell's own, over the limits too, and weigh the artifact."""
    options = replace(options, precision=cell.precision, mix=cell.mix or "auto", accept=True)
    place = folder / cell.name.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    try:
        check_all([cell.format], options)
        cell.converted = convert_one(source, cell.format, place, options, progress)
    except (PoseError, ValueError) as error:
        cell.error = str(error)
        return
    sidecar = json.loads(cell.converted.file.with_name(cell.converted.file.name + ".json").read_text())
    cell.export = sidecar["export"]
    if division := cell.export.get("delegation"):
        cell.export["operations"] = division["operations_inside"] + division["operations_outside"]
        cell.export["partitions"] = division["partitions"]
    parity = cell.converted.parity
    cell.notes += parity.violations(cell.precision) if parity else ["unverified: nothing here runs it"]
    progress(f"{cell.name}: weighing")
    try:
        cell.weight = weigh(cell.converted.file)
    except PoseError as error:
        cell.notes.append(str(error))


def weigh(artifact: Path) -> dict[str, float]:
    """Load time and peak memory with one thread, in a child process; PoseError with its last line if it fails."""
    root = str(Path(__file__).resolve().parent.parent)
    known = [root, os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [root]
    command = [sys.executable, "-P", "-m", "runtime.weigh", str(artifact.resolve()), "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(known)}
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PoseError(f"opening it takes more than {CHILD_TIMEOUT_S} s") from error
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"its process ended with status {child.returncode}"]
        raise PoseError(lines[-1].removeprefix("error: ").replace(f"{artifact.resolve().parent}{os.sep}", ""))
    found: dict[str, float] = json.loads(child.stdout.strip().splitlines()[-1])
    return found


def time_all(cells: Sequence[Cell], source: Source, threads: int, rounds: int, progress: Progress) -> None:
    """Latency of all artifacts with that many threads, one inference of each in turn, `rounds` times."""
    opened = {}
    for cell in cells:
        if cell.converted is not None:
            try:
                opened[id(cell)] = (cell, Timed(cell.converted.file, threads, source.crops))
            except PoseError as error:
                if threads == 1 and str(error) not in cell.notes:
                    cell.notes.append(str(error).replace(f"{cell.converted.file.parent}{os.sep}", ""))
    progress(f"{threads} threads: {len(opened)} artifacts, {rounds} rounds")
    for round_number in range(-2, rounds):
        for _, timed in opened.values():
            timed.run(round_number)
    for cell, timed in opened.values():
        cell.latency[threads] = timed.figures()
        timed.backend.close()


def settle() -> None:
    """Wait until this process uses no processor any more: pools of threads go on spinning when their work is done.

    onnxruntime's do for some 20 ms, which whoever comes next would pay for.
    """
    for _ in range(MOST_PAUSES):
        before = time.process_time()
        time.sleep(PAUSE_S)
        if time.process_time() - before < PAUSE_S / 10:
            return


class Timed:
    """An opened artifact whose inferences are timed."""

    def __init__(self, path: Path, threads: int, crops: NDArray[np.uint8]) -> None:
        sidecar = Sidecar.read(path)
        self.backend: Backend = open_backend(path, threads=threads)
        self.has_pool = threads > 1
        self.batch, dtype = sidecar.batch, sidecar.input_dtype
        self.crops = np.ascontiguousarray(np.resize(crops, (self.batch * 8, *crops.shape[1:])), dtype)
        self.wall: list[float] = []
        self.processor: list[float] = []

    def run(self, round_number: int) -> None:
        """One inference, on another crop each time; rounds before 0 warm up."""
        place = round_number % 8 * self.batch
        crops = self.crops[place : place + self.batch]
        if self.has_pool:
            settle()
        wall, processor = time.perf_counter(), time.process_time()
        self.backend.infer(crops)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        if round_number >= 0:
            self.wall.append(wall)
            self.processor.append(processor)

    def figures(self) -> dict[str, float]:
        """Milliseconds of one inference."""
        p50, p95 = np.percentile(self.wall, (50, 95))
        values = {"p50_ms": p50, "p95_ms": p95, "cpu_ms": np.median(self.processor)}
        return {name: 1000 * float(value) for name, value in values.items()}
