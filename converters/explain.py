"""What each rewrite saves: `python -m converters CHECKPOINT --to FORMAT --explain`.

The rewrites are added one at a time, in the table's order, to the network as it was trained; the sampler is a step of
its own, after those that need none. Every step is converted and run: in fp32, one crop, 1 thread, processor time, the
rounds of all steps interleaved.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from converters.formats import FORMATS, NAIVE_SAMPLER, write_artifact
from converters.graph import ExportGraph
from converters.recipe import Recipe
from converters.rewrites import REWRITES
from runtime.backends import Backend, open_backend
from tfpose_edge import TFPose

NO_ENGINE = ("coreml",)  # on this side of a Mac
MIN_ROUNDS = 5
SECONDS = 1.5  # of rounds, for each step


class Step(NamedTuple):
    """An export graph, and what it costs."""

    added: str  # to the step before: a rewrite, or the sampler
    operations: int  # of the exported program
    gmacs: float  # G multiply-adds
    milliseconds: float | None
    """Median in the format's engine; None where it does not run here."""


def explain(
    model: TFPose, name: str, sampler: str, rewrites: Sequence[str], progress: Callable[[str], None]
) -> list[Step]:
    """One step for the network as trained, one for each rewrite of `rewrites`, and one for the sampler."""
    graphs = dict(growing(model, sampler, rewrites))
    backends: dict[str, Backend] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (added, graph) in enumerate(graphs.items()):
            if name not in NO_ENGINE:
                progress(f"{name}: step {i + 1} of {len(graphs)}: {added}")
                path = Path(folder) / f"{i}{FORMATS[name].extension}"
                write_artifact(name, graph, graph.example(1, FORMATS[name].input_dtype), path, Recipe())
                backends[added] = open_backend(path, threads=1)
        progress(f"{name}: running {len(backends)} steps in turn")
        crops = next(iter(graphs.values())).example(1, FORMATS[name].input_dtype).numpy()
        runs: dict[str, Callable[[], object]] = {}
        for added, backend in backends.items():
            runs[added] = lambda backend=backend: backend.infer(crops)  # type: ignore[misc]
        times = interleaved(runs, SECONDS * len(runs))
        for backend in backends.values():
            backend.close()
    milliseconds = {added: statistics.median(its) for added, its in times.items()}
    return [Step(added, operations(g), gmacs(g), milliseconds.get(added)) for added, g in graphs.items()]


def growing(model: TFPose, sampler: str, rewrites: Sequence[str]) -> list[tuple[str, ExportGraph]]:
    """(what was added, graph) from the network as trained to all of `rewrites` with that sampler."""
    first = "sample_then_project"  # before it, another sampler would be given work that a rewrite then takes away
    names = [name for name in REWRITES if name in rewrites]
    found, applied, current = [("as trained", ExportGraph(model, NAIVE_SAMPLER))], [], NAIVE_SAMPLER
    for name in names:
        applied.append(name)
        found.append((name, ExportGraph(model, current, applied)))
        if name == first and sampler != current:
            current = sampler
            found.append((f"sampler {sampler}", ExportGraph(model, current, applied)))
    if sampler != current:
        found.append((f"sampler {sampler}", ExportGraph(model, sampler, applied)))
    return found


def operations(graph: ExportGraph) -> int:
    """Operations of the exported program; what an engine makes of them is its own affair."""
    program = torch.export.export(graph, (graph.example(1, "float32"),))
    return sum(node.op == "call_function" for node in program.graph.nodes)


def gmacs(graph: ExportGraph) -> float:
    """G multiply-adds of convolutions and matrix products for one crop."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        graph(graph.example(1, "float32"))
    return float(counter.get_total_flops()) / 2e9


def interleaved(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of processor time of each, one after the other, round by round; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    started = time.perf_counter()
    while runs and (len(next(iter(times.values()))) < MIN_ROUNDS or time.perf_counter() - started < seconds):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            times[name].append((time.process_time() - begun) * 1e3)
    return times


def as_text(steps: Sequence[Step]) -> str:
    """A table: each step's costs, and what it saved."""
    lines = [f"{'added':26} {'operations':>10} {'':>6} {'G mult-adds':>11} {'':>7} {'ms':>8} {'':>7}  what it is"]
    for before, step in zip([steps[0], *steps[:-1]], steps, strict=True):
        ms = "-" if step.milliseconds is None else f"{step.milliseconds:.2f}"
        saved = "" if step.milliseconds is None else f"{step.milliseconds - (before.milliseconds or 0):+.2f}"
        what = REWRITES[step.added].what if step.added in REWRITES else ""
        lines.append(
            f"{step.added:26} {step.operations:10} {step.operations - before.operations:+6} {step.gmacs:11.3f} "
            f"{step.gmacs - before.gmacs:+7.3f} {ms:>8} {saved:>7}  {what}".rstrip()
        )
    return "\n".join(lines)
