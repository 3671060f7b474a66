"""Reads COCO key-point JSON.

COCO JSON holds pixel indices: key points get + 0.5 here, and boxes, which are continuous already, stay as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from training.data.persons import Person, PersonSet, Record, check_shared, collect, head_size_of, person_of
from training.data.picture import Picture
from training.data.spec import DataSpec

FROM_INDICES = np.array([0.5, 0.5, 0.0])
"""Added to rows (x, y, v): the centre of the pixel of index 0 lies at 0.5."""
OFFICIAL = "person_keypoints_"
"""Start of the names of COCO's own annotation files; what follows is the part, such as val2017."""


def read_coco(spec: DataSpec, keypoint_names: Sequence[str] | None = None) -> PersonSet:
    """Read COCO key-point JSON; arguments and errors as those of `reading.load_persons`."""
    content = _read_content(spec.annotations)
    images = content["images"][spec.first - 1 : spec.last]
    if not images:
        raise InputError(f"{spec.annotations}: no images in {spec.first}-{spec.last}; it has {len(content['images'])}")
    category = _keypoint_category(content, spec.annotations)
    names = tuple(category["keypoints"])
    wanted = check_shared(names, keypoint_names, spec.annotations)
    paths, known = _image_paths(images, spec), frozenset(_image_paths(content["images"], spec))
    taken = set[int]()

    def person(identity: Any, raw: Any) -> Person | None:
        """The person of a record; None outside the range, ValueError where it is unusable."""
        if _image_of(raw, known) not in paths:
            return None
        return person_of(read_record(raw, check_id(identity, taken), names), paths[raw["image_id"]], names, wanted)

    tries = (
        (identity, partial(person, identity, raw))
        for identity, raw in numbered(content["annotations"])
        if not isinstance(raw, dict) or raw.get("category_id", category.get("id")) == category.get("id")
    )
    persons, problems = collect(tries, spec.annotations)
    return PersonSet(persons, list(paths), paths, names, known - set(paths), problems)


def read_record(raw: Mapping[str, Any], identity: int, names: Sequence[str]) -> Record:
    """An annotation with 'keypoints', 'bbox' and 'image_id' as a record; ValueError says what is wrong with it."""
    values = np.asarray(raw["keypoints"], dtype=np.float64)
    if values.shape != (3 * len(names),) or not np.isfinite(values).all():
        raise ValueError(f"'keypoints' must be {3 * len(names)} finite numbers, x, y, v for each of the names")
    crowd = bool(raw.get("iscrowd", 0))
    x, y, width, height = box = np.asarray(raw["bbox"], dtype=np.float64)
    if not np.isfinite(box).all() or ((width <= 0 or height <= 0) and not crowd):
        raise ValueError(f"'bbox' is {raw['bbox']}; it must be x, y, width, height with both sizes above 0")
    return Record(
        annotation_id=identity,
        image_id=raw["image_id"],
        rows=values.reshape(-1, 3) + FROM_INDICES,
        box_xyxy=np.array([x, y, x + width, y + height]),
        area=_area(raw),
        head_size=_head_size(raw),
        crowd=crowd,
    )


def as_annotation(person: Person, names: Sequence[str]) -> dict[str, Any]:
    """The annotation that `read_record` reads as this person, key points in the order of `names`."""
    rows = np.column_stack([np.where(person.visible[:, None] > 0, person.keypoints_xy - 0.5, 0.0), person.visible])
    x1, y1, x2, y2 = (float(v) for v in person.box_xyxy)
    head = {} if person.head_size is None else {"head_size": person.head_size}
    return {
        "id": person.annotation_id, "image_id": person.image_id, "keypoint_names": list(names),
        "keypoints": rows.ravel().tolist(), "bbox": [x1, y1, x2 - x1, y2 - y1], "area": person.area,
        "iscrowd": int(person.crowd), **head,
    }  # fmt: skip


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file that holds `what`; InputError if it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}{_parts_there(path)}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error


def is_integer(value: object) -> bool:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a JSON value is a number that is neither infinite nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)


def numbered(records: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """(id, record): the record's own id, or a number that no other has where it has none: its position, if free."""
    given = {r["id"] for r in records if isinstance(r, dict) and is_integer(r.get("id"))}
    for place, record in enumerate(records):
        number = place
        while number in given:
            number += len(records)  # the places' remainders differ, so these numbers do
        yield (record.get("id", number) if isinstance(record, dict) else record), record


def check_id(identity: Any, taken: set[int]) -> int:
    """An annotation's id, noted in `taken`; ValueError if it is no integer or there already."""
    if not is_integer(identity) or identity in taken:
        raise ValueError(f"'id' is {identity!r}; it must be an integer that no other annotation has")
    taken.add(identity)
    return int(identity)


def _parts_there(path: Path) -> str:
    """For a missing annotation file of COCO's own: which are in its folder."""
    if not path.name.startswith(OFFICIAL) or path.exists():
        return ""
    found = sorted(other.stem.removeprefix(OFFICIAL) for other in path.parent.glob(f"{OFFICIAL}*.json"))
    return f"; parts that are there: {', '.join(found) or 'none'}"


def _read_content(path: Path) -> dict[str, Any]:
    content = read_json(path, "annotations")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path}: not COCO key-point JSON: {key!r} must be a list")
    return content


def _keypoint_category(content: dict[str, Any], path: Path) -> dict[str, Any]:
    for category in content["categories"]:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return category  # type: ignore[no-any-return]
    raise InputError(f"{path}: no category has 'keypoints', a list of names")


def _image_paths(images: list[Any], spec: DataSpec) -> dict[int, Picture]:
    try:
        if not all(is_integer(image["id"]) for image in images):
            raise TypeError("another type")
        return {image["id"]: spec.images / str(image["file_name"]) for image in images}
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{spec.annotations}: every image needs an integer 'id' and a 'file_name' ({error})"
        ) from error


def _image_of(raw: Any, known: frozenset[int]) -> int:
    """An annotation's image, of those `known` to the file; ValueError otherwise."""
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    image_id: int = raw.get("image_id")  # type: ignore[assignment]
    if not is_integer(image_id) or image_id not in known:
        raise ValueError(f"'image_id' is {image_id!r}; it must be the integer id of one of the file's images")
    return image_id


def _area(raw: Mapping[str, Any]) -> float | None:
    """An annotation's area in square px, None where it has none; ValueError unless it is finite and above 0."""
    area = raw.get("area")
    if area is None or (is_finite(area) and area == 0):
        return None
    if not is_finite(area) or area < 0:
        raise ValueError(f"'area' is {area!r}; it must be a finite number above 0")
    return float(area)


def _head_size(raw: Mapping[str, Any]) -> float | None:
    """PCKh's head size in px from `head_box` (x1, y1, x2, y2) or `head_size`, where an annotation has one."""
    if raw.get("head_box") is not None:
        return head_size_of(*(float(v) for v in raw["head_box"]))
    return float(raw["head_size"]) if raw.get("head_size") else None
