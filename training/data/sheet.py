"""Pictures side by side: grids, tables with titles, and what is drawn on the pictures in them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.draw import COLOURS_BGR, side_of
from runtime.skeleton import COCO_17, limbs

Image = NDArray[np.uint8]

TITLE_HEIGHT, GAP = 26, 4  # px
PAPER, INK = (250, 250, 250), (40, 40, 40)  # BGR
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def contact_sheet(images: Sequence[Image], columns: int) -> Image:
    """Images (H, W, 3) BGR of any sizes in a grid, row by row; the largest sets the cell's size.

    Raises:
        ValueError: no images, or fewer than one column.
    """
    if not images or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns; legal: at least one of each")
    columns = min(columns, len(images))
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    sheet = np.zeros((-(-len(images) // columns) * height, columns * width, 3), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def titled_table(rows: Sequence[Sequence[Image]], titles: Sequence[str], names: Sequence[str]) -> Image:
    """Images (H, W, 3) BGR of one size in rows, with a title above each column and a name on each row's first image.

    Raises:
        ValueError: no rows, or rows, titles and names of different lengths.
    """
    if not rows or len(rows) != len(names) or any(len(row) != len(titles) for row in rows):
        raise ValueError(f"{len(rows)} rows, {len(names)} names, {len(titles)} titles; they must fit")
    height, width = rows[0][0].shape[:2]
    size = (TITLE_HEIGHT + len(rows) * (height + GAP), len(titles) * (width + GAP) - GAP)
    table: Image = np.full((*size, 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        cv2.putText(table, title, (column * (width + GAP) + 4, 18), FONT, FONT_SCALE, INK, 1, cv2.LINE_AA)
    for row, (images, name) in enumerate(zip(rows, names, strict=True)):
        top = TITLE_HEIGHT + row * (height + GAP)
        for column, image in enumerate(images):
            table[top : top + height, column * (width + GAP) :][:, :width] = image
        _outlined_text(table[top : top + height, :width], name)
    return table


def draw_keypoints(
    image: Image, keypoints_xy: NDArray[np.float64], visible: NDArray[np.int64], names: Sequence[str] = COCO_17
) -> Image:
    """A copy with limbs and points: the person's left green, right red; hidden points are hollow."""
    drawn = image.copy()
    pixels = [(int(x), int(y)) for x, y in keypoints_xy]
    for start, end in limbs(names):
        if visible[start] and visible[end]:
            cv2.line(drawn, pixels[start], pixels[end], COLOURS_BGR[side_of(names[end])], 1, cv2.LINE_AA)
    for name, pixel, seen in zip(names, pixels, visible, strict=True):
        if seen:
            cv2.circle(drawn, pixel, 2, COLOURS_BGR[side_of(name)], -1 if seen == 2 else 1, cv2.LINE_AA)
    return drawn


def overlay_heatmaps(image: Image, heatmaps: NDArray[np.float32]) -> Image:
    """A copy (H, W, 3) under the brightest of its heat maps (K, h, w), 0..1, in colours from blue to red."""
    strongest = cv2.resize(heatmaps.max(0), image.shape[1::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((255 * strongest).astype(np.uint8), cv2.COLORMAP_TURBO)
    share = 0.75 * np.sqrt(strongest)[..., None]
    return (image * (1 - share) + colours * share).astype(np.uint8)  # type: ignore[no-any-return]


def _outlined_text(image: Image, text: str) -> None:
    """Text in the lower left corner, legible on any picture; in place."""
    place = (4, image.shape[0] - 6)
    for colour, width in ((INK, 3), (PAPER, 1)):
        cv2.putText(image, text, place, FONT, 0.38, colour, width, cv2.LINE_AA)
