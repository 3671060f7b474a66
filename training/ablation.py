"""A comparison of a table's rows: runs under one budget, side by side, and the report of what they reach."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.skeleton import COCO_17
from tfpose_edge.checkpoint import written_whole
from training import comparison
from training.data.damage import say
from training.data.reading import load_persons
from training.data.spec import DataSpec
from training.networks import changes_of, configuration
from training.options import RECIPES, Recipe
from training.people import data_name
from training.row import Run, RunFailed
from training.run import RunFolder
from training.tables import Row, Table

PROBE_MINUTES = 1.0
SPARE = 0.85
"""Share of a budget that epochs are planned for; validation, checkpoints and a busy machine take the rest."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What is compared, and how."""

    name: str
    """Of the table."""
    table: Table
    preset: str
    changes: tuple[str, ...]
    data: tuple[str, ...]
    val: str
    seeds: tuple[int, ...]
    output: Path
    jobs: int
    extra: tuple[str, ...]
    """Arguments for every run."""

    def run(self, row: Row, seed: int, epochs: int) -> Run:
        """The run of a row; rows that read other layers out of one network share it."""
        changes = self.changes_of(row)
        folder = self.output / self.preset / "+".join((row.network, *changes)) / f"epochs-{epochs}-seed-{seed}"
        arguments = (*self._arguments(row), "--val", self.val, "--epochs", str(epochs), "--seed", str(seed))
        return Run(f"{'+'.join((row.network, *changes))}, seed {seed}", folder, (*arguments, *self.extra))

    def probe(self, row: Row, minutes: float) -> Run:
        """A short run that is timed."""
        folder = (
            self.output / self.preset / "+".join((row.network, *self.changes_of(row))) / f"timing-{minutes:g}-minutes"
        )
        arguments = (*self._arguments(row), "--epochs", "1", "--max-minutes", f"{minutes:g}", *self.extra)
        return Run(f"timing {row.name}", folder, arguments)

    def changes_of(self, row: Row) -> tuple[str, ...]:
        """A row's fields that differ from the preset."""
        return changes_of(self.preset, configuration(self.preset, (*self.changes, *row.changes)))

    @property
    def machine(self) -> tuple[str, ...]:
        """Threads and workers of each of the runs side by side."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        share = max(1, cpus // self.jobs)
        wanted = {"--workers": share // 2, "--threads": share - share // 2}
        return tuple(text for name, n in wanted.items() if name not in self.extra for text in (name, str(n)))

    def _arguments(self, row: Row) -> tuple[str, ...]:
        changes = self.changes_of(row)
        return (
            "--preset", self.preset, "--network", row.network, *(("--change", *changes) if changes else ()),
            *(("--train", *self.data) if self.data else ()),
        )  # fmt: skip


def compare(order: Order, epochs: int | None, minutes: float | None) -> dict[str, Any]:
    """Train and measure a table's rows; returns the report of `comparison`.

    Args:
        order: what to compare.
        epochs: of every run; None takes `minutes`, or the preset's default.
        minutes: budget of a run: all train as many epochs as the slowest can in it.
    Raises:
        KeyboardInterrupt: after Ctrl-C, with every run's state saved.
        RunFailed: after all others are done.
    """
    names = load_persons(DataSpec.parse(order.val)).names
    metric = "oks" if set(names) == set(COCO_17) else "pck"
    if epochs is None:
        recipe = RECIPES.get(order.preset, Recipe())
        epochs = recipe.epochs if minutes is None else _epochs_within(order, minutes)
    runs = {
        run.folder: run for row in order.table.rows for seed in order.seeds for run in [order.run(row, seed, epochs)]
    }
    say(f"{order.table.title}: {len(runs)} runs, epochs {epochs}, in {order.output}")
    _train_all(order, list(runs.values()))
    return _report(order, epochs, metric)


def _epochs_within(order: Order, minutes: float) -> int:
    """Epochs that the slowest row trains within the budget; timed once, then kept beside the runs."""
    path = order.output / f"table-{order.name}-budget.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    probes = {
        run.folder: run for row in order.table.rows for run in [order.probe(row, min(PROBE_MINUTES, minutes / 20))]
    }
    timed = {"minutes": minutes, "jobs": order.jobs, "runs": sorted(" ".join(run.arguments) for run in probes.values())}
    if known.get("timed") == timed:
        return int(known["epochs"])
    _side_by_side(order, list(probes.values()), _time)
    seconds = {run.name: _seconds_per_epoch(run) for run in probes.values()}
    epochs = max(1, int(SPARE * 60 * minutes / max(seconds.values())))
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps({"timed": timed, "epochs": epochs, "seconds_per_epoch": seconds}, indent=2))
    return epochs


def _seconds_per_epoch(probe: Run) -> float:
    folder = RunFolder(probe.folder)
    progress, _ = folder.load_state()
    return progress.seconds / progress.step * float(folder.read_config()["steps"])


def _time(run: Run, machine: tuple[str, ...], stop: threading.Event) -> None:
    run.check()
    if not RunFolder(run.folder).has_state:
        run.start(machine, say, stop)


def _train(run: Run, machine: tuple[str, ...], stop: threading.Event) -> None:
    run.train(machine, say, stop)


def _train_all(order: Order, runs: list[Run]) -> None:
    for run in runs:
        run.check()  # before work starts
    _side_by_side(order, runs, _train)


def _side_by_side(order: Order, runs: list[Run], work: Callable[[Run, tuple[str, ...], threading.Event], None]) -> None:
    """Do `work` for each run, `order.jobs` at a time; an error is raised after all others are done."""
    stop = threading.Event()
    with ThreadPoolExecutor(order.jobs) as pool:
        futures = [pool.submit(work, run, order.machine, stop) for run in runs]
        try:
            wait(futures)
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise errors[0] if len(errors) == 1 else RunFailed(f"{len(errors)} of {len(runs)} runs failed: {errors[0]}")


def _report(order: Order, epochs: int, metric: str) -> dict[str, Any]:
    own = changes_of(order.preset, configuration(order.preset, order.changes))
    base = f"{order.preset}{' with ' if own else ''}{' '.join(own)} (the paper: {order.table.preset})"
    return {
        "table": order.name, "title": order.table.title, "metric": metric, "preset": order.preset,
        "paper_preset": order.table.preset, "changes": list(order.changes), "epochs": epochs,
        "about": f"{base}; epochs {epochs}, weights of the last; measured on {data_name(order.val)}",
        "data": list(order.data) or "rendered people", "val": order.val, "extra": list(order.extra),
        "rows": [_row(order, row, epochs, metric) for row in order.table.rows],
    }  # fmt: skip


def _row(order: Order, row: Row, epochs: int, metric: str) -> dict[str, Any]:
    runs = {str(seed): order.run(row, seed, epochs) for seed in order.seeds}
    figures = {seed: run.measure(order.val, metric, row.layers) for seed, run in runs.items()}
    if undefined := [seed for seed, found in figures.items() if found["value"] is None]:
        raise InputError(f"{order.val}: {metric} of {row.name} is not defined (seed {', '.join(undefined)})")
    values = {seed: float(found["value"]) for seed, found in figures.items()}
    curves = {seed: run.epochs() for seed, run in runs.items()}
    config = configuration(order.preset, (*order.changes, *row.changes))
    return {
        "row": row.name, "network": row.network, "layers": row.layers, "paper": row.paper, "note": row.note,
        "values": values, **comparison.summary(list(values.values())), "figures": figures, "curves": curves,
        "minutes": sum(curve[-1]["seconds"] for curve in curves.values()) / len(curves) / 60,
        "commands": [run.command for run in runs.values()], "config": dataclasses.asdict(config),
    }  # fmt: skip
