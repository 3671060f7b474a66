"""The numbers behind figures 6, 8 and 9: how query attention follows the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.skeleton import flip_pairs, limbs
from training.figures.page import CannotDraw

Array = NDArray[np.float64]
Pair = tuple[int, int]

PATTERNS = {"symmetric": flip_pairs, "adjacent": limbs}
"""Name -> function that gives the pattern's pairs among key-point names."""
TITLES = {"symmetric": "left and right of the same point", "adjacent": "points joined by a limb"}


def pairs_of(pattern: str, names: Sequence[str]) -> list[Pair]:
    """Index pairs of a pattern; CannotDraw if these key points have none."""
    pairs = PATTERNS[pattern](names)
    if not pairs:
        raise CannotDraw(f"the key points ({', '.join(names)}) have no pair of {TITLES[pattern]}")
    return pairs


def with_average(attention: Array) -> dict[str, Array]:
    """Title -> (K, K): every layer of (N_D, K, K), and their average where there are several."""
    layers = {f"layer {i + 1}": layer for i, layer in enumerate(attention)}
    return layers | ({"average of all layers": attention.mean(0)} if len(layers) > 1 else {})


def share(attention: Array, pairs: Sequence[Pair]) -> tuple[float, float]:
    """Part of the attention (K, K) that goes along `pairs`, and what it would be if all key points got the same.

    Both are means over the queries that belong to a pair, in 0..1.
    """
    along = np.zeros(attention.shape, dtype=bool)
    for a, b in pairs:
        along[a, b] = along[b, a] = True
    asking = along.any(1)
    return float((attention * along)[asking].sum(1).mean()), float(along[asking].mean())


def strongest(attention: Array, count: int) -> list[tuple[int, int, float]]:
    """The `count` pairs (a, b) with the highest attention, mean of both directions, strongest first."""
    mutual = (attention + attention.T) / 2
    rows, columns = np.triu_indices(len(attention), k=1)
    order = np.argsort(-mutual[rows, columns], kind="stable")[:count]
    return [(int(rows[i]), int(columns[i]), float(mutual[rows[i], columns[i]])) for i in order]


def numbers(attention: Array, names: Sequence[str], edges: int) -> dict[str, Any]:
    """What --json holds: for every layer and their average the matrix, the patterns' shares and the strongest pairs."""
    patterns = {name: pairs for name, find in PATTERNS.items() if (pairs := find(names))}
    parts = {
        title: {
            "attention": layer.tolist(),
            "patterns": {
                name: dict(zip(("share", "uniform"), share(layer, pairs), strict=True))
                for name, pairs in patterns.items()
            },
            "strongest": [
                {"between": [names[a], names[b]], "attention": weight} for a, b, weight in strongest(layer, edges)
            ],
        }
        for title, layer in with_average(attention).items()
    }
    return {"names": list(names), "attention": parts}
