"""Whether scores mean what they say: among key points that score 0.8, how good are they, and are 80 % of them right?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training import metrics
from training.data.persons import Person
from training.figures.page import as_chart, new_page, save

Array = NDArray[np.float64]
BINS = 10


class Points(NamedTuple):
    """Labelled key points of a data set, N of them, and what a model answered."""

    scores: Array
    """(N,) in [0, 1]."""
    oks: Array
    """(N,) similarity to the truth, in [0, 1]: what the score head learns to foretell."""
    right: NDArray[np.bool_]
    """(N,) within 0.2 x torso; False where the torso is unlabelled."""
    judged: NDArray[np.bool_]
    """(N,) whether the torso is labelled, so that `right` says something."""


class Bin(NamedTuple):
    """Key points with about the same score."""

    score: float
    """Their mean score."""
    oks: float
    """Their mean similarity."""
    right: float | None
    """Share within 0.2 x torso; None where no torso is labelled."""
    number: int
    """How many they are."""


def points_of(results: list[dict[str, Any]], persons: Sequence[Person], names: Sequence[str]) -> Points:
    """Pair COCO results, key points in the order of `names`, with the persons they were asked for."""
    by_id = {result["annotation_id"]: np.reshape(result["keypoints"], (len(names), 3)) for result in results}
    rows = np.stack([by_id[person.annotation_id] for person in persons])  # (P, K, 3)
    similarity, labelled = metrics.similarities(rows[..., :2] + 0.5, persons, names)
    truth = np.stack([person.keypoints_xy for person in persons])
    torso = np.array([metrics.torso(person, names) for person in persons])[:, None]
    judged = np.broadcast_to(np.isfinite(torso) & (torso > 0), labelled.shape)
    right = np.linalg.norm(rows[..., :2] + 0.5 - truth, axis=-1) <= 0.2 * np.where(judged, torso, 0)
    return Points(rows[..., 2][labelled], similarity[labelled], (right & judged)[labelled], judged[labelled])


def bins_of(points: Points, count: int = BINS) -> list[Bin]:
    """Bins of equal width over 0..1, lowest scores first; empty ones are left out."""
    place = np.minimum((points.scores * count).astype(int), count - 1)
    found = []
    for index in np.unique(place):
        chosen = place == index
        judged = chosen & points.judged
        found.append(
            Bin(
                float(points.scores[chosen].mean()),
                float(points.oks[chosen].mean()),
                float(points.right[judged].mean()) if judged.any() else None,
                int(chosen.sum()),
            )
        )
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance between score and similarity over all key points, bin by bin (expected calibration error)."""
    total = sum(b.number for b in bins)
    return sum(b.number * abs(b.score - b.oks) for b in bins) / max(1, total)


def draw(path: Path, of_models: dict[str, list[Bin]], about: str) -> None:
    """A panel for each model: mean similarity and share of right points over the score, and how many there are."""
    figure, axes = new_page(1, len(of_models), (3.6, 3.4), "Do scores mean what they say?", about)
    for axis, (name, bins) in zip(axes.flat, of_models.items(), strict=True):
        as_chart(axis)
        total = sum(b.number for b in bins)
        axis.bar(
            [b.score for b in bins], [b.number / total for b in bins], 0.06, color="0.85", label="share of the points"
        )
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        axis.plot([b.score for b in bins], [b.oks for b in bins], marker="o", markersize=4, label="mean OKS")
        judged = [b for b in bins if b.right is not None]
        axis.plot(
            [b.score for b in judged], [b.right for b in judged], marker="s", markersize=4, label="right (PCK@0.2)"
        )
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", title=f"{name}: error {calibration_error(bins):.3f}")
        axis.title.set_fontsize(9)
    axes.flat[0].legend(fontsize=7, loc="upper left")
    save(figure, path)
