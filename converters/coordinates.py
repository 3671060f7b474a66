"""Which operations of a graph compute coordinates, and so must keep their precision; the same search in every format.

A coordinate is what becomes an index, what a grid sampler reads, and what leaves as key points. The operations behind
one, back to the linear layers that begin it and those layers too, are its *origin*; all that follows from them up to
the next linear layer (fractions of pixels, bilinear weights) is its *reach*.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

Operation = TypeVar("Operation", bound=Hashable)
"""A name, or any other key."""


def origins(
    graph: Mapping[Operation, Collection[Operation]], sinks: Iterable[Operation], linear: Collection[Operation]
) -> set[Operation]:
    """`sinks` and what they come from, back to operations of `linear`, which belong to it.

    `graph` has the operations that each operation reads, in the order of computation.
    """
    found: set[Operation] = set()
    pending = list(sinks)
    while pending:
        name = pending.pop()
        if name not in found and name in graph:
            found.add(name)
            pending += [] if name in linear else graph[name]
    return found


def reach(
    graph: Mapping[Operation, Collection[Operation]], sources: Collection[Operation], linear: Collection[Operation]
) -> set[Operation]:
    """`sources` and what reads them, up to the next operation of `linear`, which does not belong to it."""
    found = set(sources)
    for name, read in graph.items():
        if name not in linear and not found.isdisjoint(read):
            found.add(name)
    return found
