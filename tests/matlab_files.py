"""Small .mat files with the nesting of the official ones: MPII's RELEASE and Leeds Sports Pose's joints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from runtime.skeleton import MPII_16

EMPTY = np.zeros((0, 0))


def struct_array(records: list[dict[str, Any]]) -> np.ndarray:
    """A 1 x N struct array; a field that only some records have is empty in the others, as MATLAB has it."""
    names = dict.fromkeys(name for record in records for name in record)
    array = np.zeros((1, len(records)), dtype=[(name, object) for name in names])
    for place, record in enumerate(records):
        for name in names:
            array[0, place][name] = record.get(name, EMPTY)
    return array


def cells(values: list[Any]) -> np.ndarray:
    """An N x 1 cell array."""
    array = np.empty((len(values), 1), dtype=object)
    for place, value in enumerate(values):
        array[place, 0] = value
    return array


def rectangle(points: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """An annorect with key points, and scale, position and head as `fields` say."""
    return {"annopoints": {"point": struct_array(points)}, **fields}


def mpii_points(keypoints_xy: np.ndarray, visible: np.ndarray) -> list[dict[str, Any]]:
    """MPII points of key points (16, 2) in continuous px, in the order of MPII_16; unlabelled ones are left out."""
    return [
        {"x": x + 0.5, "y": y + 0.5, "id": i, "is_visible": int(v == 2)}
        for i, ((x, y), v) in enumerate(zip(keypoints_xy, visible, strict=True))
        if v > 0
    ]


def write_release(path: Path, images: list[dict[str, Any]]) -> Path:
    """RELEASE of images {"name", "annorect": [rectangles], "train": 0 or 1, "single": [numbers from 1]}."""
    annolist = [
        {"image": {"name": image["name"]}, "annorect": struct_array(r) if (r := image["annorect"]) else EMPTY,
         "frame_sec": EMPTY}
        for image in images
    ]  # fmt: skip
    release = {
        "annolist": struct_array(annolist),
        "img_train": np.array([[image.get("train", 1) for image in images]], dtype=np.uint8),
        "single_person": cells([np.array(image.get("single", [])).reshape(-1, 1) for image in images]),
        "version": "12",
    }
    savemat(path, {"RELEASE": release})
    return path


def write_joints(path: Path, rows: np.ndarray, extended: bool = False) -> Path:
    """joints.mat of rows (N, 14, 3) in MATLAB's coordinates: 3 x 14 x N, or 14 x 3 x N for the extended set."""
    savemat(path, {"joints": rows.transpose((1, 2, 0) if extended else (2, 1, 0))})
    return path


def mpii_of_coco(keypoints_xy: np.ndarray, visible: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """MPII points of a person with other names; what MPII has not, or the other not, is left out."""
    rows = {name: i for i, name in enumerate(names)}
    order = [rows.get(name, -1) for name in MPII_16]
    seen = np.array([visible[i] if i >= 0 else 0 for i in order])
    return mpii_points(keypoints_xy[order], seen)
