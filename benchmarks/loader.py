"""How fast training's crops are made, where the time goes, and whether training waits for them.

    python benchmarks/loader.py --data ann.json:images                          # one worker, the paper's augmentation
    python benchmarks/loader.py --data ann.json:images --augment strong --workers 2
    python benchmarks/loader.py --data ann.json:images --preset r18-ne0 r50-ne4 --train-steps 5 --batch-size 16

Stages are processor time of one thread, in ms per crop, each without what it calls of the others; `other` is matrices,
key points and tensors. Loading is wall-clock time from the first batch to the last, so start-up does not count. The
goal is 150 crops / s of each worker. Training runs whole steps, loading and augmentation included; the first is left
out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from torch.utils.data import default_collate

if __name__ == "__main__":  # run as a file: benchmarks/runtime.py must not stand for the package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import geometry
from runtime.errors import InputError
from tfpose_edge import PRESETS, PoseConfig, TFPose
from training import engine
from training.data import colour, dataset, occlusion
from training.data.augmentation import parse_augmentation
from training.data.dataset import Batch, EpochSampler, PhotographedPeople
from training.data.reading import load_labelled
from training.optimizer import build_optimizer

STAGES: dict[str, list[tuple[Any, str]]] = {
    "decode": [(dataset, "read_reduced")],
    "warp": [(geometry, "warp_image")],
    "colour": [(colour, "jitter")],
    "occlusion": [(occlusion, "paste"), (occlusion, "erase")],
}
SEED = 0


class Stopwatch:
    """Processor seconds of each stage; the time of a stage that runs inside another is that stage's alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running, self._since = ["other"], time.thread_time()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, on this watch."""

        def run(*args: Any, **options: Any) -> Any:
            with self.stage(stage):
                return function(*args, **options)

        return run

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        now = time.thread_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


def stages(data: PhotographedPeople, count: int, batch_size: int) -> dict[str, float]:
    """Milliseconds of processor time per crop of each stage, in this process."""
    data[0, 0]
    watch = Stopwatch()
    with contextlib.ExitStack() as patches:
        for stage, places in STAGES.items():
            for module, name in places:
                patches.enter_context(patch.object(module, name, watch.timed(stage, getattr(module, name))))
        for start in range(0, count, batch_size):
            with watch.stage("other"):
                items = [data[1, index % len(data)] for index in range(start, min(start + batch_size, count))]
            with watch.stage("collate"):
                default_collate(items)
    return {stage: 1000 * watch.seconds[stage] / count for stage in (*STAGES, "collate", "other")}


def crops_per_second(data: PhotographedPeople, count: int, batch_size: int, workers: int) -> float:
    """Of the loader alone, wall clock, without the time to the first batch."""
    batches = iter(engine.loader(data, _batches(data, count // batch_size + 1, batch_size), workers))
    next(batches)
    started = time.perf_counter()
    made = sum(len(batch.crops) for batch in batches)
    return made / (time.perf_counter() - started)


def training(data: PhotographedPeople, preset: str, steps: int, batch_size: int, workers: int) -> dict[str, float]:
    """Pictures per second of training with loading included, and the share of the time that it waits for batches."""
    on_gpu = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no", cpu=not on_gpu)
    torch.manual_seed(SEED)
    model = TFPose(PRESETS[preset]).to(accelerator.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(model, 1e-4, 1e-4, 0.1)
    waits: list[float] = []
    batches = engine.loader(data, _batches(data, steps + 1, batch_size), workers)
    run = engine.train_epoch(model, _waiting(batches, waits), optimizer, accelerator, lambda: 1.0, 0.1)
    next(run)
    waits.clear()
    started = time.perf_counter()
    for _ in run:
        pass
    seconds = time.perf_counter() - started
    return {
        "pictures_per_s": steps * batch_size / seconds,
        "ms_per_step": 1000 * seconds / steps,
        "waiting_share": sum(waits) / seconds,
    }


def measure(config: PoseConfig, preset: str, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one preset."""
    [persons], _ = load_labelled([args.data], config.keypoint_names)
    data = PhotographedPeople(persons, config, parse_augmentation(args.augment), SEED)
    speed = crops_per_second(data, args.count, args.batch_size, args.workers)
    figures: dict[str, Any] = {
        "preset": preset, "augment": args.augment, "workers": args.workers, "input_size_wh": config.input_size_wh,
        "crops_per_s": speed, "crops_per_s_per_core": speed / max(args.workers, 1),
        "stages_ms": stages(data, args.count, args.batch_size),
    }  # fmt: skip
    if args.train_steps:
        figures["training"] = training(data, preset, args.train_steps, args.batch_size, args.workers)
    return figures


def as_text(figures: dict[str, Any]) -> str:
    """Figures as lines for people."""
    total = sum(figures["stages_ms"].values())
    lines = [
        f"{figures['preset']}, {figures['augment']}, workers {figures['workers']}: "
        f"{figures['crops_per_s']:.0f} crops/s, {figures['crops_per_s_per_core']:.0f} per core",
        f"  one thread: {total:.2f} ms of processor time per crop, {1000 / total:.0f} crops/s",
        *(f"    {stage:<10}{ms:7.3f} ms {ms / total:6.0%}" for stage, ms in figures["stages_ms"].items()),
    ]
    if "training" in figures:
        t = figures["training"]
        lines.append(
            f"  training: {t['pictures_per_s']:.1f} pictures/s, {t['ms_per_step']:.0f} ms a step, "
            f"{t['waiting_share']:.1%} of it waiting for data"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    engine.prepare_process(args.threads or max(1, cpus - args.workers))
    try:
        for name in ("count", "batch_size"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1")
        found = [measure(PRESETS[preset], preset, args) for preset in args.preset]
        print("\n".join(map(as_text, found)))
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", InputError.exit_code if isinstance(error, OSError) else 2)
    return 0


def _batches(data: PhotographedPeople, number: int, batch_size: int) -> list[list[dataset.Key]]:
    """Keys of `number` batches in training's order, of as many epochs as that takes."""
    found: list[list[dataset.Key]] = []
    sampler = EpochSampler(len(data), batch_size, SEED)
    while len(found) < number:
        found += sampler
        sampler.epoch += 1
    return found[:number]


def _waiting(batches: Iterable[Batch], waits: list[float]) -> Iterator[Batch]:
    """The batches; `waits` gets the seconds that each let us wait."""
    source = iter(batches)
    while True:
        started = time.perf_counter()
        try:
            batch = next(source)
        except StopIteration:
            return
        waits.append(time.perf_counter() - started)
        yield batch


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, metavar="DATA", help="photographs, in any form that training.train --help lists")
    add("--preset", nargs="+", choices=PRESETS, default=["r18-ne0"], help="sets the crop's size, and what is trained")
    add("--augment", default="paper", metavar="NAME", help="paper or strong, with knobs (default paper)")
    add("--workers", type=int, default=1, metavar="N", help="processes that make crops; 0 is this one (default 1)")
    add("--count", type=int, default=1000, metavar="N", help="crops to make (default 1000)")
    add("--batch-size", type=int, default=16, metavar="N", help="default 16")
    add("--train-steps", type=int, default=0, metavar="N", help="also train N steps (default: not)")
    add("--threads", type=int, metavar="N", help="threads that train (default: the CPUs that workers leave)")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
