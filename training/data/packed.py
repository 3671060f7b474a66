"""Many persons in one file that is read once: each with its surroundings, shrunk to what crops show, as a JPEG.

The file is a plain .npz of arrays (nothing is unpickled): encoded pictures one after the other, where each ends, key
points in px of the small pictures, boxes, areas, and which source each person is from. In memory the pictures stay
encoded; one decodes in a fraction of a millisecond.
"""

from __future__ import annotations

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
from training.data.persons import Person
from training.data.picture import Picture, PictureInMemory, read_image

FORMAT = "tfpose-edge packed people/1"
REACH = 1.5
"""Side of the region that is kept, over the person's box brought to the crop's shape: padding and some turning."""
ASPECT = 0.75
"""Width over height of that region."""
HEIGHT_PX, QUALITY = 152, 62


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
        box_xyxy=(person.box_xyxy.reshape(2, 2) - low).reshape(4) * np.tile(exact, 2),
        area=person.area * float(exact.prod()),
        head_size=None,
    )


def write_people(path: Path, sources: Mapping[str, Sequence[Person]], names: Sequence[str]) -> None:
    """Write shrunk persons, key points in the order of `names`, under the names of their sources."""
    persons = [person for source in sources.values() for person in source]
    pictures = [np.frombuffer(person.image_path.read_bytes(), np.uint8) for person in persons]
    rows = [np.column_stack([p.keypoints_xy, p.visible, p.named]) for p in persons]
    head = {"format": FORMAT, "names": list(names), "sources": {name: len(found) for name, found in sources.items()}}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            head=np.frombuffer(json.dumps(head).encode(), np.uint8),
            pictures=np.concatenate(pictures),
            ends=np.cumsum([len(picture) for picture in pictures]),
            rows=np.array(rows, np.float32),
            boxes=np.array([person.box_xyxy for person in persons]),
            areas=np.array([person.area for person in persons]),
        )


def read_people(path: Path, names: Sequence[str]) -> dict[str, list[Person]]:
    """What `write_people` wrote, by source; InputError unless it is such a file with these key points."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("head", "pictures", "ends", "rows", "boxes", "areas")}
        head = json.loads(arrays["head"].tobytes())
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of packed people: {error}") from error
    if head.get("format") != FORMAT or head["names"] != list(names):
        raise InputError(f"{path}: holds other key points, or another format; remove it, and it is made again")
    persons = [_person(path, arrays, row) for row in range(len(arrays["ends"]))]
    ends = np.cumsum(list(head["sources"].values()))
    return {
        name: persons[end - count : end]
        for (name, count), end in zip(head["sources"].items(), ends.tolist(), strict=True)
    }


def shrunk(persons: Iterable[Person], height_px: int = HEIGHT_PX, quality: int = QUALITY) -> list[Person]:
    """The persons, each in a picture of their own; a picture that several are in is decoded once."""
    found: list[Person] = []
    last: tuple[Picture, NDArray[np.uint8]] | None = None
    for person in persons:
        if last is None or last[0] != person.image_path:
            last = person.image_path, read_image(person.image_path)
        name = f"{Path(str(person.image_path)).name}#{person.annotation_id}"
        found.append(shrink(person, last[1], name, height_px, quality))
    return found


def _person(path: Path, arrays: dict[str, NDArray[np.generic]], row: int) -> Person:
    ends, rows = arrays["ends"], arrays["rows"][row].astype(np.float64)  # (K, 4)
    encoded = arrays["pictures"][0 if row == 0 else ends[row - 1] : ends[row]].tobytes()
    return Person(
        image_path=PictureInMemory(f"{path.name}#{row}", encoded),
        image_id=row,
        annotation_id=row,
        keypoints_xy=rows[:, :2],
        visible=rows[:, 2].astype(np.int64),
        named=rows[:, 3] > 0,
        box_xyxy=arrays["boxes"][row],
        area=float(arrays["areas"][row]),
    )
