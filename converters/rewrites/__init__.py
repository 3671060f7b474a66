"""Exact rewrites of an export graph: each a function that changes the graph in place.

Exact: in fp32 the key points stay within 1e-4 of the crop. A rewrite does nothing where it finds nothing to rewrite.
New ones are a function and a line in `REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from converters.rewrites.backbone import fold_batchnorm, fold_normalisation
from converters.rewrites.decoder import (
    fold_first_layer,
    last_layer_only,
    merge_query_projections,
    place_samples,
    sample_then_project,
)
from converters.rewrites.encoder import flatten_tokens, fold_positions, merge_projections
from converters.rewrites.sampling import chunk_look_ups

if TYPE_CHECKING:
    from converters.graph import ExportGraph

__all__ = ["REWRITES", "Rewrite", "rewrites_for"]

EVERYWHERE = ("onnx", "openvino", "coreml", "executorch")


class Rewrite(NamedTuple):
    """A row of the table."""

    apply: Callable[[ExportGraph], None]
    what: str  # it does, in a line
    formats: tuple[str, ...] = EVERYWHERE  # whose engines it helps


REWRITES: dict[str, Rewrite] = {
    "fold_normalisation": Rewrite(fold_normalisation, "standard deviation into the first convolution"),
    "fold_batchnorm": Rewrite(fold_batchnorm, "BatchNorm into the convolution before it"),
    "fold_positions": Rewrite(fold_positions, "encoder: position terms and reference points into constants"),
    "merge_projections": Rewrite(
        merge_projections, "encoder: one matmul for value, positions and logits", ("executorch", "coreml")
    ),
    "flatten_tokens": Rewrite(flatten_tokens, "encoder: tokens without a batch axis", ("onnx",)),
    "sample_then_project": Rewrite(sample_then_project, "decoder: projects samples, not the memory"),
    "place_samples": Rewrite(place_samples, "decoder: positions and logits from one matmul"),
    "merge_query_projections": Rewrite(merge_query_projections, "decoder: one matmul for q2q attention"),
    "fold_first_layer": Rewrite(fold_first_layer, "decoder: the first layer's constants"),
    "last_layer_only": Rewrite(last_layer_only, "decoder: no key points of other layers"),
    "chunk_look_ups": Rewrite(chunk_look_ups, "look-ups in pieces that stay in the cache", ("onnx",)),
}
"""Name -> rewrite, in the order of application."""


def rewrites_for(name: str, wanted: tuple[str, ...] = tuple(REWRITES)) -> tuple[str, ...]:
    """Those of the rewrites wanted that a format of that name takes, in the table's order."""
    return tuple(rewrite for rewrite, row in REWRITES.items() if rewrite in wanted and name in row.formats)
