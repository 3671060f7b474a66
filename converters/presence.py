"""From which mean score on a crop shows somebody: measured on people, and on places of their pictures without any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST = 16  # crops of either kind, or the quantiles are chance
MISSED, MISTAKEN = 0.05, 0.95  # quantiles of the two kinds between which the limit lies


def presence_score(of_people: NDArray[np.float32], of_nobody: NDArray[np.float32]) -> float | None:
    """The limit on the mean score of a crop, in [0, 1], halfway between unlikely people and likely nobodies.

    Args:
        of_people: scores (N, K) of crops of one person each.
        of_nobody: scores (M, K) of crops that show nobody.
    Returns:
        None where fewer than `FEWEST` are there, or where the network is as sure of nobody as of people.
    """
    if min(len(of_people), len(of_nobody)) < FEWEST:
        return None
    people, nobody = of_people.mean(axis=1), of_nobody.mean(axis=1)
    if np.median(people) <= np.quantile(nobody, MISTAKEN):
        return None
    return round(float(np.quantile(people, MISSED) + np.quantile(nobody, MISTAKEN)) / 2, 3)
