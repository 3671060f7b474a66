"""Time and memory of decoder attention in training: the plain layer -> the one that samples, then projects.

    python benchmarks/decoder_attention.py     # one layer, then whole training steps; 1 thread, both in turn; Linux

ms: median processor time, forward and backward (and optimiser). MB: what two runs add to the process at their peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

if __name__ == "__main__":  # run as a file, the folder of the package is not on the path
    sys.path[:1] = [str(Path(__file__).resolve().parent.parent)]

from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import DeformableAttention, SampleThenProject, get_sampler
from training import criterion, engine
from training.data.dataset import Batch, RenderedPeople
from training.optimizer import build_optimizer

LAYERS = [("r18-ne0", 1), ("r18-ne0", 8), ("r50-ne4", 8), ("tiny", 32)]
STEPS = [("r18-ne0", 4), ("r18-ne0-c128", 4), ("r50-ne4", 4), ("tiny", 32)]


def layer(preset: str, batch: int, sampler: str, option: bool) -> Callable[[], None]:
    """One decoder layer's attention at the preset's shapes."""
    c, kind = PRESETS[preset], SampleThenProject if option else DeformableAttention
    attention = kind(c.d_model, c.n_heads, len(c.levels), c.n_points, get_sampler(sampler))
    query = torch.randn(batch, c.num_keypoints, c.d_model, requires_grad=True)
    memory = torch.randn(batch, sum(h * w for h, w in c.spatial_shapes), c.d_model, requires_grad=True)
    references = torch.rand(batch, c.num_keypoints, 2)
    return lambda: attention(query, references, memory, c.spatial_shapes).sum().backward()


def step(preset: str, batch: int, sampler: str, option: bool) -> Callable[[], None]:
    """A whole training step on rendered people."""
    config, people = PRESETS[preset], RenderedPeople(batch, PRESETS[preset])
    data = Batch(*(torch.stack(field) for field in zip(*(people[0, i] for i in range(batch)), strict=True)))
    network = TFPose(config, sampler, option).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, sigmas = build_optimizer(network, 1e-4, 1e-4, 1.0), torch.full((config.num_keypoints,), 0.08)

    def run() -> None:
        output = network(engine.as_input(data.crops))
        terms = criterion.losses(output, network.heatmaps(output.memory), data, sigmas, config.input_size_wh)
        optimizer.zero_grad(set_to_none=True)
        criterion.weighted_sum(terms).backward()
        optimizer.step()

    return run


def added_mb(make: Callable[..., Callable[[], None]], *case: object) -> float:
    """Peak of two runs above what the process held before them; for a process of its own."""
    torch.set_num_threads(1)
    run, mb = make(*case), lambda field: int(Path("/proc/self/status").read_text().split(field)[1].split()[0]) / 1024
    before = mb("VmRSS:")
    run()
    run()
    return mb("VmHWM:") - before


def main(argv: list[str] | None = None) -> int:
    """Measure and print all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="of each case that are counted (default 10)")
    args = parser.parse_args(argv)
    engine.prepare_process(1)
    for make, preset, batch in [(layer, *case) for case in LAYERS] + [(step, *case) for case in STEPS]:
        for sampler in ("grid_sample", "gather"):
            cases = [(preset, batch, sampler, option) for option in (False, True)]
            runs, spent = [make(*case) for case in cases], ([0.0], [0.0])
            for i in range(2 * (args.rounds + 2)):
                start = time.process_time()
                runs[i % 2]()
                spent[i % 2].append(1e3 * (time.process_time() - start))
            ms = [statistics.median(times[2:]) for times in spent]
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                mb = pool.starmap(added_mb, [(make, *case) for case in cases], 1)
            print(f"{make.__name__} {preset:12} batch {batch:2} {sampler:11}", end=" ")
            print(f"{ms[0]:7.1f} -> {ms[1]:7.1f} ms ({ms[1] / ms[0]:.2f}x) {mb[0]:5.0f} -> {mb[1]:5.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
