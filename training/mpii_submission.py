"""MPII's test persons, whose annotations a server keeps, and the file that it wants: pred_keypoints_mpii.mat.

Source: "Evaluation on MPII Human Pose Dataset", the README of MPII's evaluation toolkit evalMPII.zip (data set's page,
human-pose.mpi-inf.mpg.de), single person: `pred = annolist(RELEASE.img_train == 0)`, for each person in
`RELEASE.single_person` `pred(imgidx).annorect(ridx).annopoints.point(pidx)` with x, y and the point's id from 0, saved
as `pred`; position and scale of each person may be used. evaluatePCKh.m finds the persons by `objpos`, which so stays.
Coordinates start at 1, as in the annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.skeleton import MPII_16
from tfpose_edge.checkpoint import written_whole
from training.answers import Asked, Found
from training.data.mpii import MATLAB_SHIFT, scale_box
from training.data.mpii_mat import Entry
from training.data.persons import Array

Struct = NDArray[Any]
"""A MATLAB struct array (1, N) as scipy reads it, fields as arrays."""
EMPTY = np.zeros((0, 0))


class MpiiTest:
    """The test images of MPII's official .mat.

    Args:
        path: mpii_human_pose_v1_u12_1.mat.
        images: folder of the pictures.
    Raises:
        InputError: not MPII's file, or one without test persons.
    """

    def __init__(self, path: Path, images: Path) -> None:
        release = _read_release(path)
        try:
            testing = np.flatnonzero(release["img_train"].ravel() == 0)
            self._annolist: Struct = release["annolist"][:, testing]
            singles = [release["single_person"].ravel()[i] for i in testing]
            self._places, self.without_place = _single_persons(self._annolist, singles)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not MPII's file: {error}") from error
        if not self._places:
            raise InputError(f"{path}: has no test persons")
        self.images = images

    @property
    def asked(self) -> list[Asked]:
        """The sufficiently separated persons; `annotation_id` counts them, `image_id` counts the test images."""
        names = [_text(self._annolist[0, image]["image"], "name") for image, _, _ in self._places]
        return [
            Asked(image, self.images / name, box, annotation_id=number)
            for number, ((image, _, box), name) in enumerate(zip(self._places, names, strict=True))
        ]

    def write(self, path: Path, found: Sequence[Found], names: Sequence[str]) -> None:
        """Write pred_keypoints_mpii.mat; key points in the order of `names`, those that MPII has not are left out."""
        from scipy.io import savemat

        pred = self._annolist.copy()
        by_person = {one.asked.annotation_id: one for one in found}
        for image in {image for image, _, _ in self._places}:
            pred[0, image]["annorect"] = _with_field(pred[0, image]["annorect"], "annopoints")
        for number, (image, rectangle, _) in enumerate(self._places):
            if number in by_person:
                pred[0, image]["annorect"][0, rectangle]["annopoints"] = _points(by_person[number].keypoints_xy, names)
        with written_whole(path) as temporary:
            savemat(str(temporary), {"pred": pred}, appendmat=False, do_compression=True)


def _read_release(path: Path) -> Struct:
    """RELEASE of the official file, nothing squeezed, so that it can be written as it was."""
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"{path}: cannot read annotations: no such file")
    try:
        return loadmat(str(path), variable_names=["RELEASE"])["RELEASE"][0, 0]  # type: ignore[no-any-return]
    except Exception as error:  # scipy raises whatever damaged bytes lead it to
        raise InputError(f"{path}: not MPII's .mat file: {type(error).__name__}: {error}") from error


def _single_persons(annolist: Struct, singles: Sequence[NDArray[Any]]) -> tuple[list[tuple[int, int, Array]], int]:
    """(image, rectangle, box (4,) px) of each separated person, from 0; and how many have no position or scale."""
    places, without = [], 0
    for image, numbers in enumerate(singles):
        rectangles = annolist[0, image]["annorect"]
        for rectangle in sorted(int(number) - 1 for number in numbers.ravel()):
            box = _box(rectangles[0, rectangle])
            without += box is None
            if box is not None:
                places.append((image, rectangle, box))
    return places, without


def _box(rectangle: Any) -> Array | None:
    position, scale = _field(rectangle, "objpos"), _field(rectangle, "scale")
    if position is None or scale is None:
        return None
    center = np.array([float(_field(position.flat[0], name).item()) for name in ("x", "y")])  # type: ignore[union-attr]
    return scale_box(Entry(np.zeros((0, 3)), center, float(scale.item()), None), MATLAB_SHIFT)


def _field(struct: Any, name: str) -> NDArray[Any] | None:
    """A field of one struct; None where it is absent or empty."""
    value = struct[name] if name in (struct.dtype.names or ()) else EMPTY
    return value if value.size else None


def _text(structs: Struct, name: str) -> str:
    return str(structs.flat[0][name].item())


def _points(keypoints_xy: Array, names: Sequence[str]) -> Struct:
    """The annopoints of a person, from key points (K, 2) in continuous px."""
    known = [(MPII_16.index(name), xy - MATLAB_SHIFT) for name, xy in zip(names, keypoints_xy, strict=True)]
    points = np.empty((1, len(known)), dtype=[("x", object), ("y", object), ("id", object)])
    for place, (identity, (x, y)) in enumerate(known):
        points[0, place] = float(x), float(y), float(identity)
    annopoints = np.empty((1, 1), dtype=[("point", object)])
    annopoints[0, 0]["point"] = points
    return annopoints


def _with_field(structs: Struct, name: str) -> Struct:
    """The same structs with one more field, or with this one emptied."""
    kept = [field for field in structs.dtype.names or () if field != name]
    extended = np.empty(structs.shape, dtype=[(field, object) for field in [*kept, name]])
    for place in np.ndindex(structs.shape):
        extended[place] = (*(structs[place][field] for field in kept), EMPTY)
    return extended
