"""Figure 10: the best, the middle and the worst predictions on their photographs, so that failures show."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import geometry
from runtime.draw import COLOURS_BGR, draw_poses
from runtime.errors import InputError
from runtime.skeleton import limbs
from training import metrics
from training.data.crops import person_matrix
from training.data.persons import Person
from training.data.picture import read_image
from training.figures.page import CannotDraw, new_page, save
from training.figures.people import cut_printed
from training.figures.survey import Survey

Array = NDArray[np.float64]
RANKS = {"oks": "OKS, x 100", "pck": "PCK@0.2, %"}
"""What --rank-by may name, and how a panel says it."""
PRINTED_WH = (360, 480)  # px
PADDING = 1.3  # around the person's box, a little more than a crop has


@dataclass(frozen=True)
class Example:
    """A person with the prediction and its figure."""

    person: Person
    keypoints_xy: Array
    """(K, 2) px of the image."""
    value: float
    """0..100."""


def rank(survey: Survey, names: Sequence[str], by: str) -> list[Example]:
    """Everybody, worst first; with "pck" without those who have no torso to measure by."""
    values = dict(enumerate(100 * metrics.oks(survey.keypoints_xy, survey.persons, names))) if by == "oks" else {}
    if by == "pck":
        for place, (person, xy) in enumerate(zip(survey.persons, survey.keypoints_xy, strict=True)):
            with contextlib.suppress(InputError):
                values[place] = metrics.pck(xy[None], [person], names, 0.2)["value"]
    order = sorted(values, key=lambda place: values[place])
    return [Example(survey.persons[i], survey.keypoints_xy[i], float(values[i])) for i in order]


def best_middle_worst(ranked: Sequence[Example], count: int) -> dict[str, list[Example]]:
    """Up to `count` examples of each; CannotDraw if there are fewer than three in all."""
    if len(ranked) < 3:
        raise CannotDraw(f"best, middle and worst need 3 persons whose figure is defined; the data has {len(ranked)}")
    count = min(count, len(ranked) // 3)
    middle = (len(ranked) - count) // 2
    return {
        "best": list(ranked[::-1][:count]),
        "middle": list(ranked[middle : middle + count]),
        "worst": list(ranked[:count]),
    }


def draw_examples(path: Path, survey: Survey, names: Sequence[str], by: str, count: int, about: str) -> None:
    """Draw a row each of the best, the middle and the worst.

    Args:
        path: of the PNG.
        survey: what the network answered.
        names: K key points.
        by: a key of `RANKS`.
        count: persons in a row.
        about: second line of the title.
    """
    ranked = rank(survey, names, by)
    rows = best_middle_worst(ranked, count)
    median = np.median([example.value for example in ranked])
    title = f"Predictions, ranked by {RANKS[by].split(',')[0]} (median {median:.0f})"
    columns = len(rows["best"])
    width = 2.3
    figure, axes = new_page(3, columns, (width, width * PRINTED_WH[1] / PRINTED_WH[0] + 0.2), title, about)
    for row, (what, examples) in enumerate(rows.items()):
        for axis, example in zip(axes[row], examples, strict=True):
            _draw_example(axis, example, names)
            axis.set_title(f"{RANKS[by].split(',')[0]} {example.value:.0f}", fontsize=9)
        axes[row, 0].set_ylabel(what, fontsize=11)
    _draw_legend(figure)
    save(figure, path)


def _draw_example(axis: Any, example: Example, names: Sequence[str]) -> None:
    """The photograph around a person, every predicted key point whatever its score, and lines to the annotated ones."""
    matrix = person_matrix(example.person.box_xyxy, PRINTED_WH, PADDING)
    image = cut_printed(read_image(example.person.image_path), matrix, PRINTED_WH)
    predicted = geometry.transform_points(example.keypoints_xy, matrix)
    truth = geometry.transform_points(example.person.keypoints_xy, matrix)
    sure = np.ones((1, len(names)), np.float32)
    drawn = draw_poses(
        np.ascontiguousarray(image[..., ::-1]), predicted[None].astype(np.float32), sure, names, limbs(names)
    )
    width, height = PRINTED_WH
    axis.imshow(drawn[..., ::-1], extent=(0, width, height, 0))
    for k in np.flatnonzero(example.person.visible > 0):
        axis.plot(*zip(predicted[k], truth[k], strict=True), color="white", linewidth=0.8, linestyle=":")
        axis.plot(*truth[k], "+", color="black", markersize=6.5, markeredgewidth=2.2)
        axis.plot(*truth[k], "+", color="white", markersize=5.5, markeredgewidth=1.1)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def _draw_legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=_rgb(colour), linewidth=3, label=f"predicted, {side}")
        for side, colour in COLOURS_BGR.items()
    ]
    truth = Line2D([], [], linestyle="", marker="+", color="black", markersize=8, label="annotated")
    figure.legend(handles=[*entries, truth], loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def _rgb(colour_bgr: tuple[int, int, int]) -> tuple[float, float, float]:
    blue, green, red = colour_bgr
    return red / 255, green / 255, blue / 255
