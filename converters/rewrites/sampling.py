"""Rewrites of the samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.placed import Bag, Gather

if TYPE_CHECKING:
    from converters.graph import ExportGraph

CHUNK_BYTES = 2**20
"""Rows that one look-up writes: with the values that it reads, less than a core's second-level cache."""


def chunk_look_ups(graph: ExportGraph) -> None:
    """Look rows up in pieces that the matmul after it still finds in the cache."""
    channels = graph.network.config.d_model
    for module in graph.modules():
        if isinstance(module, Gather) and not isinstance(module, Bag):
            row_bytes = 4 * channels // module.n_heads * 4 * len(module.width)
            module.chunk = max(1, CHUNK_BYTES // row_bytes)
