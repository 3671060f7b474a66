"""OKS AP, PCK and PCKh of predicted key points, in numpy and pycocotools (imported when AP is asked for)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.skeleton import limbs, sigmas
from training.data.persons import Person, PersonSet

Array = NDArray[np.float64]
METRICS = {
    "oks": "COCO's average precision by object key-point similarity",
    "pck": "share of key points within t x torso (left shoulder to right hip)",
    "pckh": "share of key points within t x head size",
}

PCKH_LEFT_OUT = ("pelvis", "thorax")
"""Not in the total PCKh, as published figures have it (evaluation code of simple-baselines and HRNet)."""
PCKH_GROUPS = {
    "head": ("upper_neck", "head_top"),
    **{part: (f"left_{part}", f"right_{part}") for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")},
}
"""Columns of the paper's table 7: means of two points each, as MPII's evaluation toolkit (genTablePCK.m) makes them."""


def measure(
    results: list[dict[str, Any]], truth: PersonSet, names: Sequence[str], metric: str, threshold: float | None
) -> dict[str, Any]:
    """Figures of a metric of `METRICS`: "value", "per_keypoint", "persons" and more; see `pck`, `average_precision`.

    Args:
        results: COCO results in the order of `names`.
        truth: the data set, key points in the order of `names`, at least one person labelled.
        names: the K names that model and data share.
        metric: a key of `METRICS`; with "oks", `per_keypoint` is `oks_per_keypoint`, all None without annotation ids.
        threshold: of PCK and PCKh.
    Raises:
        InputError: PCK of results without annotation ids, or of persons without a reference length.
    """
    persons = truth.labelled
    predicted = paired(results, persons, len(names))
    if metric == "oks":
        points = dict.fromkeys(names) if predicted is None else oks_per_keypoint(predicted, persons, names)
        return {**average_precision(results, truth, names), "persons": len(persons), "per_keypoint": points}
    if predicted is None:
        raise InputError("PCK needs to know whose key points these are: every result must have an 'annotation_id'")
    assert threshold is not None
    return pck(predicted, persons, names, threshold, by_head=metric == "pckh")


def pck(
    predicted_xy: Array, persons: Sequence[Person], names: Sequence[str], threshold: float, by_head: bool = False
) -> dict[str, Any]:
    """Percentage of labelled key points within `threshold` x torso, or x head size with `by_head`.

    Args:
        predicted_xy: (N, K, 2) px, in the order of `names`.
        persons: N, the truth in the same order.
        names: K key-point names.
        threshold: fraction of the reference length.
        by_head: PCKh; persons need a `head_size`, and `PCKH_LEFT_OUT` are not in the "value".
    Returns:
        "value", "per_keypoint" (None where nothing is labelled), "persons" and "left_out" (no reference length); with
        `by_head` also "groups", the columns of the paper's table 7.
    Raises:
        InputError: no person has a reference length.
    """
    lengths = np.array([_head(p) if by_head else torso(p, names) for p in persons], dtype=np.float64)
    usable = np.isfinite(lengths) & (lengths > 0)
    if not usable.any():
        missing = "head size" if by_head else "labelled left shoulder and right hip"
        raise InputError(f"none of the {len(persons)} persons has a {missing}: the metric is not defined for this data")
    truth = np.stack([p.keypoints_xy for p in persons])
    labelled = np.stack([p.visible > 0 for p in persons]) & usable[:, None]
    distance = np.linalg.norm(predicted_xy - truth, axis=-1)
    right = (distance <= threshold * np.where(usable, lengths, 0.0)[:, None]) & labelled
    total = np.array([not (by_head and name in PCKH_LEFT_OUT) for name in names])
    value = 100.0 * right[:, total].sum() / max(1, labelled[:, total].sum())
    shares = {
        name: float(100.0 * right[:, k].sum() / labelled[:, k].sum()) if labelled[:, k].any() else None
        for k, name in enumerate(names)
    }
    return {
        "value": value,
        "per_keypoint": shares,
        **({"groups": {**_grouped(shares), "total": value}} if by_head else {}),
        "persons": int(usable.sum()),
        "left_out": int((~usable).sum()),
    }


def _grouped(shares: Mapping[str, float | None]) -> dict[str, float | None]:
    """The mean of each of `PCKH_GROUPS` over its points with a share; None where none has one."""
    grouped = {}
    for group, names in PCKH_GROUPS.items():
        known = [share for share in map(shares.get, names) if share is not None]
        grouped[group] = sum(known) / len(known) if known else None
    return grouped


def oks(predicted_xy: Array, persons: Sequence[Person], names: Sequence[str]) -> Array:
    """Mean OKS (N,) of each person's labelled points, in [0, 1]; COCO's formula without the threshold."""
    similarity, labelled = similarities(predicted_xy, persons, names)
    return similarity.sum(1) / np.maximum(1, labelled.sum(1))  # type: ignore[no-any-return]


def oks_per_keypoint(predicted_xy: Array, persons: Sequence[Person], names: Sequence[str]) -> dict[str, float | None]:
    """Mean similarity of each point in percent over the persons that have it labelled; None where nobody has."""
    similarity, labelled = similarities(predicted_xy, persons, names)
    sums, counts = similarity.sum(0), labelled.sum(0)
    return {name: 100.0 * float(sums[k] / counts[k]) if counts[k] else None for k, name in enumerate(names)}


def paired(results: list[dict[str, Any]], persons: Sequence[Person], num_keypoints: int) -> Array | None:
    """Predictions (N, K, 2) px of `persons`, found by annotation id; infinite, so all wrong, for persons without one.

    Args:
        results: COCO results with 3 K key points each; those without an "annotation_id" belong to nobody.
        persons: N persons.
        num_keypoints: K.
    Returns:
        None if no result has an annotation id.
    """
    by_id = {r["annotation_id"]: r for r in results if "annotation_id" in r}
    if results and not by_id:
        return None
    predicted = np.full((len(persons), num_keypoints, 2), np.inf)
    for row, person in enumerate(persons):
        if person.annotation_id in by_id:
            values = np.reshape(by_id[person.annotation_id]["keypoints"], (num_keypoints, 3))
            predicted[row] = values[:, :2] + 0.5
    return predicted


def average_precision(results: list[dict[str, Any]], truth: PersonSet, names: Sequence[str]) -> dict[str, Any]:
    """COCO's AP, AP50, AP75, APM, APL and AR in 0..100, by pycocotools.

    Args:
        results: COCO results {"image_id", "keypoints" (3 K, pixel indices), "score"} in the order of `names`.
        truth: the data set, key points in the order of `names`.
        names: the K names that model and data share.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = _as_coco(truth, names)
        ground.createIndex()
        found = ground.loadRes([{**r, "category_id": 1} for r in results]) if results else COCO()
        evaluation = COCOeval(ground, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas(names))
        evaluation.params.imgIds = truth.image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    keys = {"value": 0, "ap50": 1, "ap75": 2, "apm": 3, "apl": 4, "ar": 5}
    return {key: 100.0 * float(evaluation.stats[i]) if evaluation.stats[i] >= 0 else None for key, i in keys.items()}


def similarities(
    predicted_xy: Array, persons: Sequence[Person], names: Sequence[str]
) -> tuple[Array, NDArray[np.bool_]]:
    """Similarity (N, K) of each key point, 0 where unlabelled, and which are labelled (N, K)."""
    variance = (2 * np.array(sigmas(names))) ** 2
    truth = np.stack([p.keypoints_xy for p in persons])
    labelled = np.stack([p.visible > 0 for p in persons])
    area = np.array([p.area for p in persons])[:, None]
    squared = ((predicted_xy - truth) ** 2).sum(-1)
    return np.exp(-squared / (2 * (area + np.spacing(1)) * variance)) * labelled, labelled


def torso(person: Person, names: Sequence[str]) -> float:
    """PCK's reference length in px, left shoulder to right hip; not a number where one of them is unlabelled."""
    try:
        left, right = list(names).index("left_shoulder"), list(names).index("right_hip")
    except ValueError:
        return float("nan")
    if person.visible[left] == 0 or person.visible[right] == 0:
        return float("nan")
    return float(np.linalg.norm(person.keypoints_xy[left] - person.keypoints_xy[right]))


def _head(person: Person) -> float:
    return float("nan") if person.head_size is None else person.head_size


def _as_coco(truth: PersonSet, names: Sequence[str]) -> dict[str, Any]:
    annotations = []
    for identity, person in enumerate(truth.persons, start=1):
        rows = np.column_stack([np.where(person.visible[:, None] > 0, person.keypoints_xy - 0.5, 0), person.visible])
        x1, y1, x2, y2 = person.box_xyxy
        annotations.append(
            {"id": identity, "image_id": person.image_id, "category_id": 1, "iscrowd": int(person.crowd),
             "keypoints": rows.ravel().tolist(), "num_keypoints": int((person.visible > 0).sum()),
             "bbox": [x1, y1, x2 - x1, y2 - y1], "area": person.area}
        )  # fmt: skip
    return {
        "images": [{"id": identity} for identity in truth.image_ids],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(names), "skeleton": limbs(names)}],
    }
