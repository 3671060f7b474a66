"""Reads MPII Human Pose: the official .mat, and the JSON list that other projects made of it.

Source of the .mat: the data set's page (human-pose.mpi-inf.mpg.de, "Annotation description"): x1, y1, x2, y2 are the
head's rectangle, `scale` is the person's size "w.r.t. 200 px height", `objpos` the rough position. Coordinates start at
1: continuous = MATLAB's - 0.5. The JSON list (image, scale, center, joints, joints_vis) of simple-baselines and HRNet
holds the same 1-based numbers: their readers subtract 1, "MPII uses matlab format, index is based 1". Copies that were
shifted already need the option `zero-based`.

Box: a square of 200 px x scale around objpos moved down by 15 px x scale, as those readers have it; their factor 1.25,
"to avoid cropping limbs", is the padding that this project adds to every box. Persons without scale or position get the
box around their key points, and so does everybody with the option `keypoint-boxes`. Area: of the key points' box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.skeleton import MPII_16
from training.data.damage import say
from training.data.mpii_list import read_list
from training.data.mpii_mat import Entry, Makers, read_release
from training.data.persons import (
    AREA_OF_BOX,
    Array,
    Person,
    PersonSet,
    Record,
    check_shared,
    collect,
    head_size_of,
    keypoint_box,
    person_of,
)  # fmt: skip
from training.data.picture import Picture
from training.data.spec import DataSpec

PX_PER_SCALE = 200.0
DOWN_PER_SCALE = 15.0  # px
MATLAB_SHIFT, INDEX_SHIFT = -0.5, 0.5  # px, to continuous coordinates


def read_mpii(spec: DataSpec, keypoint_names: Sequence[str] | None = None) -> PersonSet:
    """Read MPII; arguments and errors as those of `reading.load_persons`. Image ids count the file's images from 1.

    Persons without key points are left out; their number is said on stderr and is in `PersonSet.unlabelled`.
    """
    images = _read_images(spec)
    wanted = check_shared(MPII_16, keypoint_names, spec.annotations)
    chosen = range(1, len(images) + 1)[spec.first - 1 : spec.last]
    if not chosen:
        raise InputError(f"{spec.annotations}: no images in {spec.first}-{spec.last}; it has {len(images)}")
    paths: dict[int, Picture] = {i: spec.images / images[i - 1][0] for i in chosen}
    unlabelled = 0

    def person(identity: int, image_id: int, make: Callable[[], Entry | None]) -> Person | None:
        """The person of an entry; None where nobody labelled it or the options leave it out."""
        nonlocal unlabelled
        entry = make()
        unlabelled += entry is None
        if entry is None or (spec.option("single") is not None and not entry.single):
            return None
        return person_of(_record(entry, identity, image_id, spec), paths[image_id], MPII_16, wanted)

    tries = ((i, partial(person, i, image_id, make)) for i, image_id, make in _numbered(images) if image_id in paths)
    persons, problems = collect(tries, spec.annotations)
    if unlabelled:
        say(f"{spec.annotations}: {unlabelled} persons without key points left out")
    others = frozenset(range(1, len(images) + 1)) - set(chosen)
    return PersonSet(persons, list(chosen), paths, MPII_16, others, problems, unlabelled)


def _read_images(spec: DataSpec) -> list[tuple[str, Makers]]:
    heads = spec.option("heads")
    if spec.annotations.suffix == ".json":
        if spec.option("single") is not None:
            raise InputError(f"{spec.annotations}: the JSON list does not say who is single; the official .mat does")
        return read_list(spec.annotations, Path(heads) if heads else None)
    if heads:
        raise InputError(f"{spec.annotations}: the official .mat has head boxes of its own; leave out heads={heads}")
    return read_release(spec.annotations)


def _numbered(images: list[tuple[str, Makers]]) -> Iterator[tuple[int, int, Callable[[], Entry | None]]]:
    """(annotation id, image id, maker), both counted from 1 through the whole file."""
    identity = 0
    for image_id, (_, makers) in enumerate(images, start=1):
        for make in makers:
            identity += 1
            yield identity, image_id, make


def _record(entry: Entry, identity: int, image_id: int, spec: DataSpec) -> Record:
    shift = MATLAB_SHIFT if spec.option("zero-based") is None else INDEX_SHIFT
    rows = entry.rows + np.array([shift, shift, 0.0])
    around = keypoint_box(rows)
    width, height = around[2:] - around[:2]
    box = None if spec.option("keypoint-boxes") is not None else scale_box(entry, shift)
    return Record(
        annotation_id=identity,
        image_id=image_id,
        rows=rows,
        box_xyxy=around if box is None else box,
        area=float(AREA_OF_BOX * width * height) or None,  # one point alone has no box: then that of the person's box
        head_size=None if entry.head_box is None else head_size_of(*entry.head_box),
    )


def scale_box(entry: Entry, shift: float) -> Array | None:
    """The box (4,) px from scale and position; None where one of them is unknown."""
    if entry.center is None or entry.scale is None:
        return None
    center = entry.center + shift + np.array([0.0, DOWN_PER_SCALE * entry.scale])
    half = PX_PER_SCALE * entry.scale / 2
    return np.concatenate([center - half, center + half])
