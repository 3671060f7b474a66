"""Crops to compare networks on: of photographs where a data set is given, of rendered people otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from runtime import geometry
from training.data import crops
from training.data.picture import read_image
from training.data.reading import check_labelled, load_persons
from training.data.rendered import render_person
from training.data.spec import DataSpec

Pair = tuple[NDArray[np.uint8], NDArray[np.float64]]
"""Image (H, W, 3) BGR and box (4,) px."""


def calibration_crops(
    input_size_wh: tuple[int, int], padding: float, data: str | None = None, count: int = 64, seed: int = 0
) -> NDArray[np.uint8]:
    """Crops (N, 3, H, W) uint8 RGB, cut as the runtime cuts them.

    Args:
        input_size_wh: crop size (width, height) in px.
        padding: factor by which the box is extended.
        data: DATA, of which `count` persons are taken evenly, with true boxes; None renders.
        count: how many; fewer where the data set has fewer.
        seed: of the rendered people.
    Raises:
        InputError: the data set cannot be read, or has no person with labelled key points.
    """
    pairs = _photographs(data, count) if data else _rendered(count, seed)
    cut = [
        geometry.warp_image(image, crops.person_matrix(box, input_size_wh, padding), input_size_wh)
        for image, box in pairs
    ]
    return np.ascontiguousarray(np.stack(cut)[..., ::-1].transpose(0, 3, 1, 2))


def _rendered(count: int, seed: int) -> Iterator[Pair]:
    for index in range(count):
        person = render_person(np.random.default_rng([seed, index]))
        yield person.image, person.box_xyxy


def _photographs(data: str, count: int) -> Iterator[Pair]:
    spec = DataSpec.parse(data)
    persons = check_labelled(load_persons(spec), spec)
    for place in np.unique(np.linspace(0, len(persons) - 1, min(count, len(persons))).astype(int)):
        yield read_image(persons[place].image_path), persons[place].box_xyxy
