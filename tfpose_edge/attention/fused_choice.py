"""Which way to sum the value's gradient is faster: measured once for each shape, on the device that computes it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping

import torch

ROUNDS = 3
HEAD_START_CYCLES = 10_000_000  # of the device, about 5 ms: longer than the host takes to launch what is timed
Way = Callable[[], object]

_fastest: dict[Hashable, str] = {}


def fastest(case: Hashable, ways: Mapping[str, Way], unmeasured: str) -> str:
    """The name of the fastest way; the first call for a case runs all of them, `ROUNDS` times and once before.

    That first call waits for the device; later ones do not. While a CUDA graph is captured nothing can be timed: a case
    that is still unknown then gets `unmeasured`, and is not remembered.

    Args:
        case: what the choice depends on: device, shapes and types.
        ways: name -> what to run; each must leave what is computed as it is.
        unmeasured: a key of `ways`.
    """
    if case in _fastest:
        return _fastest[case]
    if torch.cuda.is_current_stream_capturing():
        return unmeasured
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            times[name].append(milliseconds(way))
    medians = {name: statistics.median(of_way[1:]) for name, of_way in times.items()}  # the first compiles
    _fastest[case] = min(medians, key=lambda name: medians[name])
    return _fastest[case]


def milliseconds(way: Way) -> float:
    """What a way takes on the current CUDA stream, without the host's time to launch it: the device is kept waiting."""
    torch.cuda._sleep(HEAD_START_CYCLES)  # type: ignore[no-untyped-call]
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()  # type: ignore[no-untyped-call]
    way()
    end.record()  # type: ignore[no-untyped-call]
    end.synchronize()  # type: ignore[no-untyped-call]
    return start.elapsed_time(end)  # type: ignore[no-any-return, no-untyped-call]
