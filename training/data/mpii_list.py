"""MPII's persons as the JSON list of simple-baselines and HRNet (train.json, valid.json), with head sizes beside it.

Each object has `image`, `center` and `scale` (objpos and scale of the .mat), `joints` (16 points) and `joints_vis`
(0: no such label). The list holds no head boxes: gt_valid.mat has them in the list's order (`headboxes_src`, 2 x 2 x
N), the official .mat by image and position.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.skeleton import MPII_16
from training.data.coco import is_finite, read_json
from training.data.matlab import read_mat
from training.data.mpii_mat import Entry, Makers, head_sizes
from training.data.persons import Array

SAME_PLACE_PX = 1.0
"""Farthest that `center` may lie from the official objpos of the same person."""


def read_list(path: Path, heads: Path | None = None) -> list[tuple[str, Makers]]:
    """Each image's file name, in order of first appearance, and its persons.

    Args:
        path: the JSON list.
        heads: a .mat file with head boxes; None leaves head sizes unknown.
    Raises:
        InputError: not such a list, or head boxes that do not belong to it.
    """
    content = read_json(path, "annotations")
    if not isinstance(content, list) or not content:
        raise InputError(f"{path}: not MPII's JSON list: it must be a list of objects with image, center, joints ...")
    boxes = _head_boxes(heads, content, path) if heads else [None] * len(content)
    images: dict[str, Makers] = {}
    for place, (raw, box) in enumerate(zip(content, boxes, strict=True)):
        if not isinstance(raw, dict) or not isinstance(raw.get("image"), str):
            raise InputError(f"{path}: not MPII's JSON list: its object {place} has no 'image', a file name")
        images.setdefault(raw["image"], []).append(partial(_entry, raw, box))
    return list(images.items())


def _entry(raw: dict[str, Any], head_box: Array | None) -> Entry | None:
    points = np.asarray(raw.get("joints"), dtype=np.float64)
    labelled = np.asarray(raw.get("joints_vis"), dtype=np.float64)
    count = len(MPII_16)
    if points.shape != (count, 2) or labelled.shape != (count,):
        raise ValueError(f"'joints' must be {count} pairs and 'joints_vis' {count} numbers")
    if not (labelled > 0).any():
        return None
    rows = np.column_stack([points, np.where(labelled > 0, 2.0, 0.0)])
    return Entry(rows, _center(raw), float(raw["scale"]) if _is_above_0(raw.get("scale")) else None, head_box)


def _center(raw: dict[str, Any]) -> Array | None:
    """`center` (2,) px; None where it is absent, which these lists write as -1."""
    center = raw.get("center")
    if not isinstance(center, list) or len(center) != 2 or not all(map(_is_above_0, center)):
        return None
    return np.array(center, dtype=np.float64)


def _is_above_0(value: object) -> bool:
    return is_finite(value) and value > 0  # type: ignore[operator, no-any-return]


def _head_boxes(heads: Path, content: list[Any], path: Path) -> list[Array | None]:
    """A head box (4,) px, or None, for each object of the list."""
    try:
        boxes = np.asarray(read_mat(heads, "headboxes_src"), dtype=np.float64)
    except InputError as error:
        if "no variable" not in str(error):
            raise
        return _official_boxes(heads, content)
    boxes = boxes.reshape(2, 2, -1)  # corner, x or y, person
    if boxes.shape[2] != len(content):
        raise InputError(f"{heads}: has {boxes.shape[2]} head boxes, but {path} {len(content)} persons")
    return list(boxes.transpose(2, 0, 1).reshape(-1, 4))


def _official_boxes(heads: Path, content: list[Any]) -> list[Array | None]:
    known = head_sizes(heads)
    found: list[Array | None] = []
    for raw in content:
        center = _center(raw) if isinstance(raw, dict) else None
        near = [] if center is None else [
            entry.head_box for entry in known.get(raw.get("image"), ())
            if entry.center is not None and np.abs(entry.center - center).max() <= SAME_PLACE_PX
        ]  # fmt: skip
        found.append(near[0] if near else None)
    return found
