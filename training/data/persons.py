"""Annotated persons, whatever format they come from, with key points joined by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from training.data.damage import listing, refuse_too_many, say
from training.data.picture import Picture

Array = NDArray[np.float64]
AREA_OF_BOX = 0.53
"""Annotation area over box area, for records without an area (COCO's own average)."""
KEYPOINT_BOX_MARGIN = 0.1
"""Of a box around key points, on every side, in units of their extent: the body is wider than its key points."""


@dataclass(frozen=True)
class Person:
    """One annotated person; K is the number of names that were asked for, not the file's."""

    image_path: Picture
    image_id: int
    annotation_id: int
    keypoints_xy: Array
    """(K, 2) px, continuous; 0 where unlabelled."""
    visible: NDArray[np.int64]
    """(K,) COCO's v: 0 unlabelled, 1 hidden, 2 visible."""
    named: NDArray[np.bool_]
    """(K,) whether the data set's skeleton has this point at all."""
    box_xyxy: Array
    """(4,) px."""
    area: float
    """Square px, OKS's squared scale."""
    head_size: float | None = None
    """px, for PCKh: 0.6 x the diagonal of the head box."""
    crowd: bool = False
    beside_xyxy: Array = field(default_factory=lambda: np.zeros((0, 4)))
    """(N, 4) px, others in the same picture who are not persons of the data themselves: no crop there is empty."""

    @property
    def ignored(self) -> bool:
        """Crowds and persons without labelled points: no crop, but no false positive either."""
        return self.crowd or not (self.visible > 0).any()


@dataclass(frozen=True)
class PersonSet:
    """The persons of a data set and the pictures they are in."""

    persons: list[Person]
    image_ids: list[int]
    image_paths: dict[int, Picture]
    names: tuple[str, ...]
    """Key points of the file's skeleton, in its order."""
    other_image_ids: frozenset[int] = frozenset()
    """Images of the file that are outside the chosen range."""
    problems: list[str] = field(default_factory=list)
    """Records that were left out because they are unusable: "annotation 7: why"."""
    unlabelled: int = 0
    """Persons that were left out because nobody labelled them, where a format has such."""

    def select(self, names: Sequence[str]) -> PersonSet:
        """The same persons with only these of the file's key points; for sets read in the file's own order."""
        columns = [self.names.index(name) for name in names]
        persons = [
            replace(p, keypoints_xy=p.keypoints_xy[columns], visible=p.visible[columns], named=p.named[columns])
            for p in self.persons
        ]
        return replace(self, persons=persons, names=tuple(names))

    def without(self, pictures: Set[Picture]) -> PersonSet:
        """The same set without these pictures and the persons on them."""
        persons = [person for person in self.persons if person.image_path not in pictures]
        kept = {person.image_id for person in persons}
        image_ids = [i for i in self.image_ids if i in kept or self.image_paths[i] not in pictures]
        return replace(self, persons=persons, image_ids=image_ids)

    @property
    def labelled(self) -> list[Person]:
        """Persons with labelled points that are no crowd: those that crops are cut for."""
        return [person for person in self.persons if not person.ignored]


@dataclass(frozen=True)
class Record:
    """One person as a file tells it, in the order of the file's own key points."""

    annotation_id: int
    image_id: int
    rows: Array
    """(K, 3): x and y in px, continuous, and COCO's v."""
    box_xyxy: Array
    """(4,) px."""
    area: float | None = None
    """Square px; None is `AREA_OF_BOX` of the box."""
    head_size: float | None = None
    crowd: bool = False


def person_of(record: Record, image_path: Picture, names: Sequence[str], wanted: Sequence[str]) -> Person:
    """The person of a record with key points `names`, joined by name to those `wanted`.

    Raises:
        ValueError: key points or box are not finite, or the box of somebody who is no crowd has no area.
    """
    x1, y1, x2, y2 = box = record.box_xyxy
    if record.rows.shape != (len(names), 3) or not np.isfinite(record.rows).all():
        raise ValueError(f"key points must be {3 * len(names)} finite numbers, x, y, v for each of the names")
    if not np.isfinite(box).all() or ((x2 <= x1 or y2 <= y1) and not record.crowd):
        raise ValueError(f"the box {box.tolist()} must be finite, and wider and higher than 0")
    keypoints_xy, visible, named = join(record.rows, names, wanted)
    return Person(
        image_path=image_path,
        image_id=record.image_id,
        annotation_id=record.annotation_id,
        keypoints_xy=keypoints_xy,
        visible=visible,
        named=named,
        box_xyxy=box,
        area=float(AREA_OF_BOX * (x2 - x1) * (y2 - y1)) if record.area is None else record.area,
        head_size=record.head_size,
        crowd=record.crowd,
    )


def join(
    rows: Array, names: Sequence[str], wanted: Sequence[str]
) -> tuple[Array, NDArray[np.int64], NDArray[np.bool_]]:
    """Key points (K, 2) px, visible (K,), named (K,) in the order of `wanted`, from rows (x, y, v) in `names`'s."""
    index = {name: i for i, name in enumerate(names)}
    named = np.array([name in index for name in wanted])
    joined = np.array([rows[index[name]] if name in index else (0.0, 0.0, 0.0) for name in wanted])
    visible = joined[:, 2].astype(np.int64)
    return np.where(visible[:, None] > 0, joined[:, :2], 0.0), visible, named


def keypoint_box(rows: Array) -> Array:
    """Box (4,) px around the labelled of the rows (x, y, v), a margin of `KEYPOINT_BOX_MARGIN` on every side.

    Raises:
        ValueError: nothing is labelled.
    """
    points = rows[rows[:, 2] > 0, :2]
    if not len(points):
        raise ValueError("no key point is labelled")
    low, high = points.min(0), points.max(0)
    margin = KEYPOINT_BOX_MARGIN * (high - low)
    return np.concatenate([low - margin, high + margin])


def head_size_of(x1: float, y1: float, x2: float, y2: float) -> float:
    """PCKh's reference length in px: 0.6 x the diagonal of the head box."""
    return 0.6 * float(np.hypot(x2 - x1, y2 - y1))


def check_shared(names: Sequence[str], wanted: Sequence[str] | None, source: object) -> tuple[str, ...]:
    """The key points to read, `names` where none are wanted; InputError if the data set has none of them."""
    wanted = names if wanted is None else wanted
    if not set(names) & set(wanted):
        raise InputError(f"{source}: none of its key points ({', '.join(names)}) is asked for")
    return tuple(wanted)


def collect(
    tries: Iterable[tuple[object, Callable[[], Person | None]]], source: object
) -> tuple[list[Person], list[str]]:
    """Call each of (id, function that makes a person, or None); persons, and a line for each unusable record.

    Raises:
        InputError: more of them are unusable than `damage.ALLOWED`.
    """
    persons, problems = [], []
    for identity, make in tries:
        try:
            person = make()
        except (TypeError, ValueError, KeyError, IndexError, OverflowError, AttributeError) as error:
            problems.append(f"annotation {identity}: {error}")
            continue
        if person is not None:
            persons.append(person)
    refuse_too_many(problems, len(persons) + len(problems), "records", source)
    if problems:
        say(f"{source}: {len(problems)} unusable records left out: {listing(problems)}")
    return persons, problems
