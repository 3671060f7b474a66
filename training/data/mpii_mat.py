"""The official annotation file of MPII Human Pose, mpii_human_pose_v1_u12_1.mat, person by person.

Its structs know every oddity: one rectangle is a struct, several are an array, none is an empty array; fields are
absent, empty, or numbers written as text. Points whose visibility is not given (head top and upper neck come from the
head's rectangle) count as visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.skeleton import MPII_16
from training.data.matlab import as_list, field, number, read_mat
from training.data.persons import Array


@dataclass(frozen=True)
class Entry:
    """One person as MPII tells it, in the file's own coordinates."""

    rows: Array
    """(16, 3): x, y in px and COCO's v, in the order of MPII's point ids, which is `MPII_16`."""
    center: Array | None
    """(2,) px, `objpos`; None where absent."""
    scale: float | None
    """Person size over 200 px; None where absent."""
    head_box: Array | None
    """(4,) px, x1 y1 x2 y2; None where absent."""
    single: bool = True
    """Whether the person is sufficiently separated from others."""


Makers = list[Callable[[], Entry | None]]
"""One for each person of an image: None where nothing is labelled, ValueError where the record is unusable."""


def read_release(path: Path) -> list[tuple[str, Makers]]:
    """Each training image's file name and persons; test images have no key points and are not here.

    Raises:
        InputError: not MPII's file.
    """
    release = read_mat(path, "RELEASE")
    images = as_list(getattr(release, "annolist", None))
    in_training = as_list(getattr(release, "img_train", None))
    singles = getattr(release, "single_person", None)
    singles = [singles] if len(images) == 1 else as_list(singles)  # of one image the cell around it is gone
    if not images or not len(images) == len(in_training) == len(singles):
        raise InputError(f"{path}: not MPII's file: annolist, img_train and single_person must be of one length")
    return [
        (_name(image, path), _makers(image, {int(i) for i in as_list(single)}))
        for image, train, single in zip(images, in_training, singles, strict=True)
        if int(train) == 1
    ]


def head_sizes(path: Path) -> dict[str, list[Entry]]:
    """The persons with a head box by image name, of training images; errors as `read_release`."""
    found: dict[str, list[Entry]] = {}
    for name, makers in read_release(path):
        for make in makers:
            try:
                entry = make()
            except ValueError:
                continue  # unusable here, so nothing can be matched with it
            if entry is not None and entry.head_box is not None and entry.center is not None:
                found.setdefault(name, []).append(entry)
    return found


def _name(image: Any, path: Path) -> str:
    name = field(field(image, "image"), "name")
    if not isinstance(name, str):
        raise InputError(f"{path}: an image of annolist has the name {name!r}; it must be text")
    return name


def _makers(image: Any, single: set[int]) -> Makers:
    """Of the image's rectangles; `single` holds the numbers, from 1, of the separated ones."""
    rectangles = as_list(getattr(image, "annorect", None))
    return [partial(_entry, rectangle, place in single) for place, rectangle in enumerate(rectangles, start=1)]


def _entry(rectangle: Any, single: bool) -> Entry | None:
    points = as_list(getattr(field(rectangle, "annopoints"), "point", None))
    if not points:
        return None
    rows = np.zeros((len(MPII_16), 3))
    for point in points:
        place = int(number(point, "id"))
        if not 0 <= place < len(MPII_16):
            raise ValueError(f"point id {place}; legal are 0 to {len(MPII_16) - 1}")
        rows[place] = number(point, "x"), number(point, "y"), _visibility(point)
    position = field(rectangle, "objpos")
    center = None if position is None else np.array([number(position, "x"), number(position, "y")])
    scale = None if field(rectangle, "scale") is None else number(rectangle, "scale")
    corners = ("x1", "y1", "x2", "y2")
    has_head = all(field(rectangle, name) is not None for name in corners)
    head = np.array([number(rectangle, name) for name in corners]) if has_head else None
    return Entry(rows, center, scale, head, single)


def _visibility(point: Any) -> float:
    """COCO's v."""
    given = field(point, "is_visible")
    return 2.0 if given is None or float(given) > 0 else 1.0
