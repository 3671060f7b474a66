"""Reads COCO key-point JSON; key points are joined by name, so any skeleton can train any other.

COCO JSON holds pixel indices: key points get + 0.5 here, and boxes, which are continuous already, stay as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

BAD_RECORDS_ALLOWED = 0.01
"""Share of the records that may be unusable before reading stops with an error."""
AREA_OF_BOX = 0.53
"""Annotation area over box area, for records without an area (COCO's own average)."""


@dataclass(frozen=True)
class DataSpec:
    """Where a data set lies, as the command lines write it: ANN.json:IMAGES[:FIRST-LAST]."""

    annotations: Path
    images: Path
    first: int = 1
    """First image, 1-based, by the order in the annotation file."""
    last: int | None = None
    """Last image, inclusive; None is the end."""

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Read `ANN.json:IMAGES[:FIRST-LAST]`; InputError says what was expected."""
        match = re.fullmatch(r"(.+\.json):(.+?)(?::(\d+)-(\d+))?", text)
        if not match:
            raise InputError(f"data {text!r} is not ANN.json:IMAGES[:FIRST-LAST], such as ann.json:images:1-900")
        annotations, images, first, last = match.groups()
        spec = cls(Path(annotations), Path(images), int(first or 1), int(last) if last else None)
        if spec.first < 1 or (spec.last is not None and spec.last < spec.first):
            raise InputError(f"data {text!r}: images {first}-{last} is not a range; the first image is 1")
        return spec


@dataclass(frozen=True)
class Person:
    """One annotated person; K is the number of names that were asked for, not the file's."""

    image_path: Path
    image_id: int
    annotation_id: int
    keypoints_xy: NDArray[np.float64]
    """(K, 2) px, continuous; 0 where unlabelled."""
    visible: NDArray[np.int64]
    """(K,) COCO's v: 0 unlabelled, 1 hidden, 2 visible."""
    named: NDArray[np.bool_]
    """(K,) whether the data set's skeleton has this point at all."""
    box_xyxy: NDArray[np.float64]
    """(4,) px."""
    area: float
    """Square px, OKS's squared scale."""
    head_size: float | None = None
    """px, for PCKh: 0.6 x the diagonal of the head box."""
    crowd: bool = False

    @property
    def ignored(self) -> bool:
        """Crowds and persons without labelled points: no crop, but no false positive either."""
        return self.crowd or not (self.visible > 0).any()


@dataclass(frozen=True)
class PersonSet:
    """The persons of a data set and the pictures they are in."""

    persons: list[Person]
    image_ids: list[int]
    image_paths: dict[int, Path]
    names: tuple[str, ...]
    """Key points of the file's skeleton, in its order."""
    other_image_ids: frozenset[int] = frozenset()
    """Images of the file that are outside the chosen range."""

    def select(self, names: Sequence[str]) -> PersonSet:
        """The same persons with only these of the file's key points; for sets read in the file's own order."""
        columns = [self.names.index(name) for name in names]
        persons = [
            replace(p, keypoints_xy=p.keypoints_xy[columns], visible=p.visible[columns], named=p.named[columns])
            for p in self.persons
        ]
        return replace(self, persons=persons, names=tuple(names))

    @property
    def labelled(self) -> list[Person]:
        """Persons with labelled points that are no crowd: those that crops are cut for."""
        return [person for person in self.persons if not person.ignored]


def load_persons(spec: DataSpec, keypoint_names: Sequence[str] | None = None) -> PersonSet:
    """Read a data set with its key points in the order of `keypoint_names`; missing ones are unlabelled.

    Without `keypoint_names` the order is the file's own.
    Unusable records are counted, reported once on stderr and left out.

    Raises:
        InputError: the file is missing or not COCO key-point JSON, the range is empty, no key point is shared, or more
            than `BAD_RECORDS_ALLOWED` of the records are unusable.
    """
    content = _read_coco(spec.annotations)
    images = content["images"][spec.first - 1 : spec.last]
    if not images:
        raise InputError(f"{spec.annotations}: no images in {spec.first}-{spec.last}; it has {len(content['images'])}")
    category = _keypoint_category(content, spec.annotations)
    names = tuple(category["keypoints"])
    keypoint_names = names if keypoint_names is None else keypoint_names
    if not set(names) & set(keypoint_names):
        raise InputError(f"{spec.annotations}: none of its key points ({', '.join(names)}) is asked for")
    paths, known = _image_paths(images, spec), frozenset(_image_paths(content["images"], spec))
    persons, problems, taken = [], [], set[int]()
    for identity, record in _numbered(content["annotations"]):
        if isinstance(record, dict) and record.get("category_id", category.get("id")) != category.get("id"):
            continue
        try:
            if _image_of(record, known) in paths:
                persons.append(_person(record, _check_id(identity, taken), names, keypoint_names, paths))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            problems.append(f"annotation {identity}: {error}")
    _report(problems, len(persons), spec.annotations)
    return PersonSet(persons, list(paths), paths, names, known - set(paths))


def check_labelled(found: PersonSet, spec: DataSpec) -> list[Person]:
    """The labelled persons of a data set; InputError if there is none."""
    if not found.labelled:
        raise InputError(f"{spec.annotations}: no person with labelled key points in {len(found.image_ids)} images")
    return found.labelled


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a picture to (H, W, 3) uint8 BGR; InputError if it is missing, damaged or truncated."""
    if not path.is_file():
        raise InputError(f"{path}: no such picture")
    try:
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None  # imread accepts half a JPEG
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except cv2.error as error:
        raise InputError(f"{path}: not a readable picture: {error.err}") from error
    if image is None:
        raise InputError(f"{path}: not a readable picture (damaged or truncated, or no picture at all)")
    return image  # type: ignore[return-value]


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file that holds `what`; InputError if it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error


def is_integer(value: object) -> bool:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a JSON value is a number that is neither infinite nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)


def _read_coco(path: Path) -> dict[str, Any]:
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


def _image_paths(images: list[Any], spec: DataSpec) -> dict[int, Path]:
    try:
        if not all(is_integer(image["id"]) for image in images):
            raise TypeError("another type")
        return {image["id"]: spec.images / str(image["file_name"]) for image in images}
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{spec.annotations}: every image needs an integer 'id' and a 'file_name' ({error})"
        ) from error


def _numbered(records: list[Any]) -> Iterator[tuple[Any, Any]]:
    """(id, record): the record's own id, or a number that no other has where it has none: its position, if free."""
    given = {r["id"] for r in records if isinstance(r, dict) and is_integer(r.get("id"))}
    for place, record in enumerate(records):
        number = place
        while number in given:
            number += len(records)  # the places' remainders differ, so these numbers do
        yield (record.get("id", number) if isinstance(record, dict) else record), record


def _image_of(record: Any, known: frozenset[int]) -> int:
    """A record's image, of those `known` to the file; ValueError otherwise."""
    if not isinstance(record, dict):
        raise ValueError("not an object")
    image_id: int = record.get("image_id")  # type: ignore[assignment]
    if not is_integer(image_id) or image_id not in known:
        raise ValueError(f"'image_id' is {image_id!r}; it must be the integer id of one of the file's images")
    return image_id


def _check_id(identity: Any, taken: set[int]) -> int:
    """An annotation's id, noted in `taken`; ValueError if it is no integer or there already."""
    if not is_integer(identity) or identity in taken:
        raise ValueError(f"'id' is {identity!r}; it must be an integer that no other annotation has")
    taken.add(identity)
    return int(identity)


def _person(
    record: dict[str, Any], identity: int, names: Sequence[str], wanted: Sequence[str], paths: dict[int, Path]
) -> Person:
    values = np.asarray(record["keypoints"], dtype=np.float64)
    if values.shape != (3 * len(names),) or not np.isfinite(values).all():
        raise ValueError(f"'keypoints' must be {3 * len(names)} finite numbers, x, y, v for each of the names")
    x, y, width, height = box = np.asarray(record["bbox"], dtype=np.float64)
    crowd = bool(record.get("iscrowd", 0))
    if not np.isfinite(box).all() or ((width <= 0 or height <= 0) and not crowd):
        raise ValueError(f"'bbox' is {record['bbox']}; it must be x, y, width, height with both sizes above 0")
    keypoints, visible, named = _join(values.reshape(-1, 3), names, wanted)
    return Person(
        image_path=paths[record["image_id"]],
        image_id=record["image_id"],
        annotation_id=identity,
        keypoints_xy=keypoints,
        visible=visible,
        named=named,
        box_xyxy=np.array([x, y, x + width, y + height]),
        area=_area(record, AREA_OF_BOX * width * height),
        head_size=_head_size(record),
        crowd=crowd,
    )


def _area(record: dict[str, Any], otherwise: float) -> float:
    """A record's area in square px, `otherwise` where it has none; ValueError unless it is finite and above 0."""
    area = record.get("area")
    if area is None or (is_finite(area) and area == 0):
        return otherwise
    if not is_finite(area) or area < 0:
        raise ValueError(f"'area' is {area!r}; it must be a finite number above 0")
    return float(area)


def _join(
    values: NDArray[np.float64], names: Sequence[str], wanted: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Key points (K, 2) px, visible (K,), named (K,) in the order of `wanted`, from rows (x, y, v) in `names`'s."""
    index = {name: i for i, name in enumerate(names)}
    named = np.array([name in index for name in wanted])
    rows = np.array([values[index[name]] if name in index else (0.0, 0.0, 0.0) for name in wanted])
    visible = rows[:, 2].astype(np.int64)
    return np.where(visible[:, None] > 0, rows[:, :2] + 0.5, 0.0), visible, named


def _head_size(record: dict[str, Any]) -> float | None:
    """PCKh's head size in px from `head_box` (x1, y1, x2, y2) or `head_size`, where a record has one."""
    if record.get("head_box") is not None:
        x1, y1, x2, y2 = (float(v) for v in record["head_box"])
        return 0.6 * float(np.hypot(x2 - x1, y2 - y1))
    return float(record["head_size"]) if record.get("head_size") else None


def _report(problems: list[str], good: int, path: Path) -> None:
    if not problems:
        return
    if len(problems) > BAD_RECORDS_ALLOWED * (good + len(problems)):
        listed = "; ".join(problems[:5])
        raise InputError(f"{path}: {len(problems)} of {good + len(problems)} records are unusable: {listed}")
    print(f"{path}: {len(problems)} unusable records left out, the first: {problems[0]}", file=sys.stderr)
