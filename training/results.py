"""Files that evaluation reads: COCO results and a detector's boxes, checked entry by entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from training.data.coco import is_finite, is_integer, read_json
from training.data.persons import PersonSet


def read_list(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects of a JSON list, each of which has `keys`; InputError otherwise."""
    content = read_json(path, "results")
    if not isinstance(content, list) or not all(isinstance(r, dict) and set(keys) <= set(r) for r in content):
        raise InputError(f"{path}: must be a list of objects with {', '.join(keys)}")
    return content


def check_results(results: Sequence[dict[str, Any]], found: PersonSet) -> list[dict[str, Any]]:
    """The COCO results of the chosen images; InputError names one that is not legal or whose image nobody knows."""
    for place, result in enumerate(results):
        if "annotation_id" in result and not is_integer(result["annotation_id"]):
            raise InputError(f"results[{place}]: 'annotation_id' is {result['annotation_id']!r}; it must be an integer")
    return _check_records("results", results, "keypoints", 3 * len(found.names), found)


def check_detections(boxes: Sequence[dict[str, Any]], found: PersonSet) -> list[dict[str, Any]]:
    """A detector's boxes on the chosen images; InputError names one that is not legal or whose image nobody knows."""
    return _check_records("boxes", boxes, "bbox", 4, found)


def _check_records(
    what: str, records: Sequence[dict[str, Any]], key: str, count: int, found: PersonSet
) -> list[dict[str, Any]]:
    """Records of the chosen images, with `count` finite numbers under `key` and a finite score."""
    chosen, known = [], found.image_paths.keys() | found.other_image_ids
    for place, record in enumerate(records):
        image_id, values, score = record.get("image_id"), record.get(key), record.get("score")
        if not is_integer(image_id) or image_id not in known:
            raise InputError(f"{what}[{place}]: 'image_id' is {image_id!r}, which is no image of the data")
        if not isinstance(values, list | tuple) or len(values) != count or not all(map(is_finite, values)):
            given = f"has {len(values)} values" if isinstance(values, list | tuple) else f"is {values!r}"
            legal = f"{count} finite numbers" + (f", 3 for each of the data's {count // 3}" * (key == "keypoints"))
            raise InputError(f"{what}[{place}] (image {image_id}): {key!r} {given}; legal are {legal}")
        if not is_finite(score):
            raise InputError(f"{what}[{place}] (image {image_id}): 'score' is {score!r}; it must be a finite number")
        if image_id in found.image_paths:
            chosen.append(record)
    return chosen
