"""Reads Leeds Sports Pose and its Extended Training set, as distributed: joints.mat and images/im0001.jpg ...

Sources: the README of lsp_dataset ("14 joint locations for each image along with a binary value specifying joint
visibility", right ankle first, left and right as the person's own) and of lspet_dataset ("14 joint locations and
visibility flags"). The arrays are 3 x 14 x N in the one and 14 x 3 x N in the other. The flag's sense differs: in LSP
all points are labelled and 1 marks an occluded one (so the set's other readers have it; the README leaves it open), in
LSPET 1 marks a labelled point and 0 one that was not found. Coordinates start at 1: continuous = MATLAB's - 0.5. There
are no boxes: `persons.keypoint_box` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.skeleton import LSP_14
from training.data.matlab import read_mat
from training.data.persons import Array, Person, PersonSet, Record, check_shared, collect, keypoint_box, person_of
from training.data.picture import Picture
from training.data.spec import DataSpec

FROM_MATLAB = np.array([-0.5, -0.5, 0.0])
"""Added to rows (x, y, v): MATLAB's first pixel centre is 1, ours 0.5."""
DIGITS = {"lsp": 4, "lspet": 5}
"""Of the number in a picture's name."""


def read_lsp(spec: DataSpec, keypoint_names: Sequence[str] | None = None) -> PersonSet:
    """Read LSP or LSPET; arguments and errors as `reading.load_persons`. Image ids are the pictures' numbers."""
    every = _read_rows(spec.annotations, spec.kind)
    wanted = check_shared(LSP_14, keypoint_names, spec.annotations)
    known = range(1, len(every) + 1)
    chosen = known[spec.first - 1 : spec.last]
    if not chosen:
        raise InputError(f"{spec.annotations}: no images in {spec.first}-{spec.last}; it has {len(every)}")
    paths: dict[int, Picture] = {i: spec.images / f"im{i:0{DIGITS[spec.kind]}}.jpg" for i in chosen}

    def person(number: int) -> Person:
        rows = every[number - 1]
        return person_of(Record(number, number, rows, keypoint_box(rows)), paths[number], LSP_14, wanted)

    persons, problems = collect(((i, partial(person, i)) for i in chosen), spec.annotations)
    return PersonSet(persons, list(chosen), paths, LSP_14, frozenset(known) - set(chosen), problems)


def _read_rows(path: Path, kind: str) -> Array:
    """Rows (N, 14, 3) of x, y in continuous px and COCO's v."""
    values = np.asarray(read_mat(path, "joints"))
    if values.ndim == 2:
        values = values[..., None]  # one image
    shape = (3, 14) if kind == "lsp" else (14, 3)
    if values.shape[:2] != shape or values.ndim != 3 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: 'joints' of {kind} must be {shape[0]} x {shape[1]} x N numbers, is {values.shape}")
    rows = values.astype(np.float64).transpose((2, 1, 0) if kind == "lsp" else (2, 0, 1)) + FROM_MATLAB
    flags = rows[..., 2]
    rows[..., 2] = np.where(flags == 1, 1, 2) if kind == "lsp" else np.where(flags == 1, 2, 0)
    return rows
