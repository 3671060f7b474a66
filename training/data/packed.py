"""Many persons in one file that is read once: each with its surroundings, shrunk to what crops show, as a JPEG.

The file is a plain .npz of arrays (nothing is unpickled): encoded pictures one after the other, where each ends, key
points in px of the small pictures, boxes, areas, boxes of others, and which source each person is from. In memory the
pictures stay encoded; one decodes in a fraction of a millisecond.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime import geometry
from runtime.errors import InputError
from tfpose_edge.checkpoint import written_whole
from training.data.damage import Damage
from training.data.persons import Array, Person
from training.data.picture import PictureInMemory, read_image

FORMAT = "tfpose-edge packed people/3"
REACH = 1.5
"""Side of the region that is kept, over the person's box brought to the crop's shape: padding and some turning."""
ASPECT = 0.75
"""Width over height of that region."""
HEIGHT_PX, QUALITY = 152, 62
ARRAYS = ("head", "pictures", "ends", "rows", "boxes", "areas", "beside", "beside_ends")


def shrink(person: Person, image: NDArray[np.uint8], name: str, height_px: int, quality: int) -> Person:
    """The person in a picture of their own: the region around the box, at most `height_px` high, never enlarged."""
    center, scale = geometry.box_to_center_scale(person.box_xyxy, (3, 4), REACH)
    factor = min(1.0, height_px / scale[1])
    low = np.maximum(np.floor(center - scale / 2), 0)
    high = np.minimum(np.ceil(center + scale / 2), image.shape[1::-1])  # what lies outside stays black in crops
    size_wh = tuple(int(v) for v in np.maximum(np.rint((high - low) * factor), 1))
    x0, y0, x1, y1 = (int(v) for v in (*low, *high))
    small = cv2.resize(image[y0:y1, x0:x1], size_wh, interpolation=cv2.INTER_AREA)
    exact = np.array(size_wh) / (high - low)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return replace(
        person,
        image_path=PictureInMemory(name, encoded.tobytes()),
        keypoints_xy=np.where(person.visible[:, None] > 0, (person.keypoints_xy - low) * exact, 0.0),
        box_xyxy=_moved(person.box_xyxy, low, exact),
        beside_xyxy=_moved(person.beside_xyxy, low, exact),
        area=person.area * float(exact.prod()),
        head_size=None,
    )


def write_people(
    path: Path, sources: Mapping[str, Sequence[Person]], names: Sequence[str], origins: Mapping[str, str]
) -> None:
    """Write shrunk persons, key points in the order of `names`, under the names of their sources.

    `origins` are hashes of the files that the sources were read from, by source.
    """
    persons = [person for source in sources.values() for person in source]
    pictures = [np.frombuffer(person.image_path.read_bytes(), np.uint8) for person in persons]
    rows = [np.column_stack([p.keypoints_xy, p.visible, p.named]) for p in persons]
    counts = {name: len(found) for name, found in sources.items()}
    head = {"format": FORMAT, "names": list(names), "sources": counts, "origins": dict(origins)}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            head=np.frombuffer(json.dumps(head).encode(), np.uint8),
            pictures=np.concatenate(pictures),
            ends=np.cumsum([len(picture) for picture in pictures]),
            rows=np.array(rows, np.float32),
            boxes=np.array([person.box_xyxy for person in persons]),
            beside=np.concatenate([person.beside_xyxy for person in persons]),
            beside_ends=np.cumsum([len(person.beside_xyxy) for person in persons]),
            areas=np.array([person.area for person in persons]),
        )


def read_people(path: Path, names: Sequence[str]) -> tuple[dict[str, list[Person]], dict[str, str]]:
    """What `write_people` wrote: persons and origins, by source.

    Raises:
        InputError: it is no such file, or has other key points.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ARRAYS}
        head = json.loads(arrays["head"].tobytes())
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of packed people: {error}") from error
    if head.get("format") != FORMAT or head["names"] != list(names):
        raise InputError(f"{path}: holds other key points, or another format; remove it, and it is made again")
    persons = [_person(path, arrays, row) for row in range(len(arrays["ends"]))]
    ends = np.cumsum(list(head["sources"].values()))
    sources = {
        name: persons[end - count : end]
        for (name, count), end in zip(head["sources"].items(), ends.tolist(), strict=True)
    }
    return sources, head["origins"]


def shrunk(
    persons: Iterable[Person], damage: Damage, height_px: int = HEIGHT_PX, quality: int = QUALITY
) -> list[Person]:
    """The persons, each in a picture of their own, with the boxes of the others who were in the same one.

    A picture that several are in is decoded once. Who is in one that cannot be read is left out, `damage` gets a line.
    """
    found: list[Person] = []
    for picture, group in itertools.groupby(persons, lambda person: person.image_path):
        people = list(group)
        try:
            image = read_image(picture)
        except InputError as error:
            damage.note(*(f"annotation {person.annotation_id}: {error}" for person in people))
            continue
        for person in people:
            beside = [other.box_xyxy for other in people if other is not person]
            person = replace(person, beside_xyxy=np.concatenate([person.beside_xyxy, *(b[None] for b in beside)]))
            name = f"{Path(str(picture)).name}#{person.annotation_id}"
            found.append(shrink(person, image, name, height_px, quality))
    return found


def _moved(boxes_xyxy: Array, low: Array, factor: Array) -> Array:
    """Boxes (..., 4) px in a picture that begins at `low` (2,) and is so many times larger, (2,)."""
    moved: Array = (boxes_xyxy - np.tile(low, 2)) * np.tile(factor, 2)
    return moved


def _person(path: Path, arrays: dict[str, NDArray[np.generic]], row: int) -> Person:
    rows = arrays["rows"][row].astype(np.float64)  # (K, 4)
    encoded = _piece(arrays["pictures"], arrays["ends"], row).tobytes()
    return Person(
        image_path=PictureInMemory(f"{path.name}#{row}", encoded),
        image_id=row,
        annotation_id=row,
        keypoints_xy=rows[:, :2],
        visible=rows[:, 2].astype(np.int64),
        named=rows[:, 3] > 0,
        box_xyxy=arrays["boxes"][row],
        area=float(arrays["areas"][row]),
        beside_xyxy=_piece(arrays["beside"], arrays["beside_ends"], row).astype(np.float64),
    )


def _piece(joined: NDArray[np.generic], ends: NDArray[np.generic], row: int) -> NDArray[np.generic]:
    """Piece `row` of pieces that lie one after the other, given where each ends."""
    return joined[ends[row - 1] if row else 0 : ends[row]]
