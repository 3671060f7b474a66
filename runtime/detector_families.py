"""The common families of person detectors: told apart by their outputs, each with its pre-processing and its decoding.

A network's file says neither how pictures are scaled nor what its numbers mean. What follows is what the families'
own exporters write; whoever trained with other settings overrides them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.geometry import Image
from runtime.tracking import overlaps

FITS = ("corner", "centre", "stretch")
PADDING_VALUE = 114
STRIDES = ((8, 16, 32), (8, 16, 32, 64))  # of the grids that one-stage detectors predict on
GRID_LIMIT = 32.0  # undecoded grid offsets and logarithms of sizes are far smaller, decoded ones reach the input's size
FRACTION_LIMIT = 2.0  # centres and sizes over the input's sides are at most about 1, px are hundreds
COCO_WITH_GAPS = (91, 92)  # classes counted like COCO's category ids, where a person is 1; 92 has "no object" as well

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input."""

    fit: str = "corner"  # scaled into the top left corner, into the centre, or stretched to the input's size
    channels: str = "rgb"  # or "bgr"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of 0..255, subtracted, in the order of the channels
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)  # divided by

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise InputError(f"Preprocessing.fit is {self.fit!r}, legal are {', '.join(FITS)}")
        if self.channels not in ("rgb", "bgr"):
            raise InputError(f"Preprocessing.channels is {self.channels!r}, legal are rgb, bgr")
        for name in ("mean", "std"):
            given = getattr(self, name)
            if not (is_three_numbers(given) and (name == "mean" or min(given) > 0)):
                least = " above 0" if name == "std" else ""
                raise InputError(f"Preprocessing.{name} is {given!r}, legal are three finite numbers{least}")

    def apply(self, image: Image, size_wh: tuple[int, int], dtype: str) -> tuple[NDArray[Any], Boxes, Boxes]:
        """An image (H, W, 3) BGR -> (1, 3, h, w); image px = (input px - offset (2,)) / scale (2,)."""
        image_wh = np.array([image.shape[1], image.shape[0]])
        ratios = np.array(size_wh) / image_wh
        wanted = ratios if self.fit == "stretch" else np.full(2, ratios.min())
        inner = np.maximum(np.rint(wanted * image_wh).astype(int), 1)
        offset = (np.array(size_wh) - inner) // 2 if self.fit == "centre" else np.zeros(2, dtype=int)
        canvas = np.full((size_wh[1], size_wh[0], 3), PADDING_VALUE, dtype=np.uint8)
        (x, y), (width, height) = offset.tolist(), inner.tolist()
        canvas[y : y + height, x : x + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        planes = cv2.split(canvas)[:: -1 if self.channels == "rgb" else 1]
        batch = np.empty((1, 3, size_wh[1], size_wh[0]), dtype=dtype)
        for channel, (plane, mean, std) in enumerate(zip(planes, self.mean, self.std, strict=True)):
            batch[0, channel] = (plane - np.float32(mean)) / np.float32(std)
        return batch, inner / image_wh, offset.astype(np.float64)


def is_three_numbers(given: Any) -> bool:
    """Whether it is a tuple, or another sequence, of three finite numbers."""
    try:
        return len(given) == 3 and bool(np.isfinite(np.asarray(given, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return False


class Family(NamedTuple):
    """One kind of detector."""

    name: str
    outputs: str  # what it is recognised by
    preprocessing: Preprocessing
    decode: Callable[[list[NDArray[Any]], tuple[int, int], int | None], tuple[Boxes, NDArray[np.float64]]]
    suppress: bool  # whether boxes of one person must still be thinned out


def decode_yolox(outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None) -> tuple[Boxes, Boxes]:
    """Rows (1, A, 5 + C): offset in the cell, logarithm of the size in cells, objectness, classes."""
    rows = outputs[0][0].astype(np.float64)
    cells, strides = grid(size_wh, len(rows))
    centers = (rows[:, :2] + cells) * strides
    sizes = np.exp(np.minimum(rows[:, 2:4], GRID_LIMIT)) * strides
    return corners(centers, sizes), rows[:, 4] * rows[:, 5 + (person or 0)]


def decode_yolox_decoded(
    outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None
) -> tuple[Boxes, Boxes]:
    """The same rows with centre and size in px of the input."""
    rows = outputs[0][0].astype(np.float64)
    return corners(rows[:, :2], rows[:, 2:4]), rows[:, 4] * rows[:, 5 + (person or 0)]


def decode_yolo(outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None) -> tuple[Boxes, Boxes]:
    """Columns (1, 4 + C, A): centre and size in px of the input, classes."""
    rows = outputs[0][0].T.astype(np.float64)
    return corners(rows[:, :2], rows[:, 2:4]), rows[:, 4 + (person or 0)]


def decode_end_to_end(outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None) -> tuple[Boxes, Boxes]:
    """Rows (1, N, 6): corners in px of the input, score, class."""
    rows = outputs[0][0].astype(np.float64)
    return rows[:, :4], np.where(rows[:, 5] == (person or 0), rows[:, 4], 0)


def decode_detections(outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None) -> tuple[Boxes, Boxes]:
    """Rows (1, N, 5): corners in px of the input and score; labels (1, N)."""
    rows, labels = sorted((output[0] for output in outputs), key=np.ndim, reverse=True)
    return rows[:, :4].astype(np.float64), np.where(labels == (person or 0), rows[:, 4], 0).astype(np.float64)


def decode_detr(outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None) -> tuple[Boxes, Boxes]:
    """Class logits (1, Q, C), and boxes (1, Q, 4): centre and size as fractions of the input."""
    boxes, logits = sorted((output[0].astype(np.float64) for output in outputs), key=lambda rows: rows.shape[1] != 4)
    classes = logits.shape[1]
    person = int(classes in COCO_WITH_GAPS) if person is None else person
    if classes == max(COCO_WITH_GAPS):  # one class is "no object": they exclude each other
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers[:, person] / powers.sum(axis=1)
    else:
        scores = 1 / (1 + np.exp(-np.clip(logits[:, person], -50, 50)))
    in_px = boxes * np.tile(np.asarray(size_wh, dtype=np.float64), 2)
    return corners(in_px[:, :2], in_px[:, 2:]), scores


def decode_rtdetr(outputs: list[NDArray[Any]], size_wh: tuple[int, int], person: int | None) -> tuple[Boxes, Boxes]:
    """Labels (1, Q) as integers, boxes (1, Q, 4) as corners in px of the size that it was told, scores (1, Q)."""
    labels, scores, boxes = (output[0] for output in sorted(outputs, key=lambda one: (one.ndim, one.dtype.kind != "i")))
    return boxes.astype(np.float64), np.where(labels == (person or 0), scores, 0).astype(np.float64)


IMAGENET_RGB = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
IMAGENET_BGR = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}
UNIT: dict[str, Any] = {"std": (255.0, 255.0, 255.0)}

FAMILIES = (
    Family("yolox", "(1, cells, 5 + classes), offsets", Preprocessing("corner", "bgr"), decode_yolox, True),
    Family("yolox-decoded", "(1, cells, 5 + classes), px", Preprocessing("corner", "bgr"), decode_yolox_decoded, True),
    Family("rtmdet", "(1, N, 5) and (1, N)", Preprocessing("corner", "bgr", **IMAGENET_BGR), decode_detections, False),
    Family(
        "yolox-mmdeploy", "(1, N, 5) and (1, N), named yolox", Preprocessing("corner", "bgr"), decode_detections, False
    ),
    Family("yolo-end-to-end", "(1, N, 6)", Preprocessing("centre", "rgb", **UNIT), decode_end_to_end, False),
    Family("yolo", "(1, 4 + classes, cells)", Preprocessing("centre", "rgb", **UNIT), decode_yolo, True),
    Family(
        "detr",
        "(1, Q, classes) and (1, Q, 4), fractions",
        Preprocessing("stretch", "rgb", **IMAGENET_RGB),
        decode_detr,
        False,
    ),
    Family(
        "rtdetr",
        "(1, Q) of integers, (1, Q, 4) and (1, Q), px",
        Preprocessing("stretch", "rgb", **UNIT),
        decode_rtdetr,
        False,
    ),
)


def recognise(outputs: Sequence[NDArray[Any]], size_wh: tuple[int, int], file_name: str = "") -> Family | None:
    """The family whose outputs these are, by their shapes; None if it is none of them.

    mmdeploy gives all its detectors the same outputs: there the file's name says whether it is a YOLOX.
    """
    shapes = [output.shape for output in outputs]
    cells = [sum(-(-size_wh[0] // s) * -(-size_wh[1] // s) for s in strides) for strides in STRIDES]
    name = ""
    if len(shapes) == 1 and len(shapes[0]) == 3:
        _, rows, columns = shapes[0]
        if rows in cells and columns > 5:
            name = "yolox" if np.abs(outputs[0][..., :2]).max() < GRID_LIMIT else "yolox-decoded"
        elif columns in cells and rows > 4:
            name = "yolo"
        elif columns == 6:
            name = "yolo-end-to-end"
    elif len(shapes) == 2:
        first, second = sorted(shapes, key=lambda shape: (len(shape), shape[-1] == 4))
        if len(first) == 2 and len(second) == 3 and second[-1] == 5:
            name = "yolox-mmdeploy" if "yolox" in file_name.lower() else "rtmdet"
        elif len(first) == len(second) == 3 and second[-1] == 4 and first[1] == second[1]:
            boxes = next(output for output in outputs if output.shape == second)
            name = "detr" if (np.abs(boxes) <= FRACTION_LIMIT).all() else ""  # px are another family's
    elif len(shapes) == 3:
        kinds = sorted((output.ndim, output.dtype.kind != "i") for output in outputs)
        if kinds == [(2, False), (2, True), (3, True)] and len({shape[:2] for shape in shapes}) == 1:
            name = "rtdetr" if max(shapes, key=len)[-1] == 4 else ""
    return next((family for family in FAMILIES if family.name == name), None)


def grid(size_wh: tuple[int, int], count: int) -> tuple[Boxes, Boxes]:
    """Cells (A, 2) as column and row, and their strides (A, 1), fine grids first, row by row."""
    for strides in STRIDES:
        grids = [np.meshgrid(np.arange(-(-size_wh[0] // s)), np.arange(-(-size_wh[1] // s))) for s in strides]
        cells = [np.stack(one, axis=-1).reshape(-1, 2).astype(np.float64) for one in grids]
        if sum(map(len, cells)) == count:
            each = [np.full((len(one), 1), float(s)) for one, s in zip(cells, strides, strict=True)]
            return np.concatenate(cells), np.concatenate(each)
    raise InputError(f"{count} cells are no grids of strides {STRIDES} over {size_wh} px")


def corners(centers: Boxes, sizes: Boxes) -> Boxes:
    """Centre and size (N, 2) -> xyxy (N, 4)."""
    return np.hstack([centers - sizes / 2, centers + sizes / 2])


def suppress(boxes_xyxy: Boxes, scores: NDArray[np.float64], most_overlap: float) -> NDArray[np.int64]:
    """Rows that stay when of boxes (N, 4) that overlap more than this only the surest one stays, surest first."""
    order = np.argsort(-scores, kind="stable")
    shares = overlaps(boxes_xyxy[order], boxes_xyxy[order])
    kept: list[int] = []
    for row in range(len(order)):
        if not (shares[row, kept] > most_overlap).any():
            kept.append(row)
    return order[kept].astype(np.int64)
