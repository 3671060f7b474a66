"""Crops to compare networks on: of photographs where a data set is given, of rendered people otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime import geometry
from training.data import crops
from training.data.persons import PersonSet
from training.data.picture import read_image
from training.data.reading import check_labelled, load_persons
from training.data.rendered import render_person
from training.data.spec import DataSpec

Size = tuple[int, int]
FEWEST_OTHERS = 16
"""With fewer people beside those that are compared, there are no others: ranges of a dozen crops would be chance."""


@dataclass(frozen=True)
class Subjects:
    """N people, each in a crop of its own, cut as the runtime cuts them."""

    crops: NDArray[np.uint8]
    """(N, 3, H, W) RGB."""
    matrices: NDArray[np.float64]
    """(N, 2, 3) from image px to crop px."""
    truth: PersonSet | None = None
    """The N annotated persons in the same order, with the key points of their file; None for rendered people."""


def calibration_crops(
    input_size_wh: Size, padding: float, data: str | None = None, count: int = 64, seed: int = 0
) -> NDArray[np.uint8]:
    """The crops (N, 3, H, W) of `subjects`, without the others."""
    return subjects(input_size_wh, padding, data, count, seed=seed)[0].crops


def subjects(
    input_size_wh: Size, padding: float, data: str | None = None, count: int = 64, others: int = 0, seed: int = 0
) -> tuple[Subjects, Subjects | None]:
    """`count` people to compare networks on, and up to `others` different ones, for the ranges of int8.

    Args:
        input_size_wh: crop size (width, height) in px.
        padding: factor by which the box is extended.
        data: DATA, of which persons are taken evenly, with true boxes; None renders.
        count: how many to compare on; fewer where the data set has fewer.
        others: how many of the rest; None comes back if fewer than `FEWEST_OTHERS` are left.
        seed: of the rendered people.
    Raises:
        InputError: the data set cannot be read, or has no person with labelled key points.
    """
    if data is None:
        first = _rendered(range(count), input_size_wh, padding, seed)
        return first, _rendered(range(count, count + others), input_size_wh, padding, seed) if others else None
    spec = DataSpec.parse(data)
    found = load_persons(spec)
    chosen, rest = choose(len(check_labelled(found, spec)), count, others)
    first = _photographs(found, chosen, input_size_wh, padding)
    return first, _photographs(found, rest, input_size_wh, padding) if rest else None


def empty_crops(input_size_wh: Size, data: str | None = None, count: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Crops (N, 3, H, W) RGB of places that show nobody, of the same pictures as `subjects`; N is `count` at most.

    A picture that people fill gives none.

    Args:
        input_size_wh: crop size (width, height) in px.
        data: DATA, whose pictures are taken evenly, once for each person; None renders.
        count: how many pictures to try.
        seed: of the rendered people, and of the places.
    Raises:
        InputError: the data set cannot be read, or has no person with labelled key points.
    """
    rng = np.random.default_rng([seed, 1])
    if data is None:
        people = [render_person(np.random.default_rng([seed, index])) for index in range(count)]
        scenes = [(p.image, p.keypoints_xy[p.visible > 0], np.zeros((0, 4))) for p in people]
    else:
        spec = DataSpec.parse(data)
        everybody = load_persons(spec)
        labelled = check_labelled(everybody, spec)
        persons = [labelled[place] for place in choose(len(labelled), count, 0)[0]]
        scenes = [
            (
                read_image(person.image_path),
                person.keypoints_xy[person.visible > 0],
                np.array([p.box_xyxy for p in everybody.persons if p.image_id == person.image_id and p is not person]),
            )
            for person in persons
        ]
    found = []
    for image, points_xy, others in scenes:
        size_wh = (image.shape[1], image.shape[0])
        matrix = crops.empty_matrix(size_wh, points_xy, others.reshape(-1, 4), input_size_wh, rng)
        if matrix is not None:
            found.append(geometry.warp_image(image, matrix, input_size_wh))
    return _as_network_sees(found) if found else np.zeros((0, 3, *input_size_wh[::-1]), np.uint8)


def choose(total: int, count: int, others: int) -> tuple[list[int], list[int]]:
    """Evenly spread places in 0..total - 1: `count` or all of them, and up to `others` of the rest."""
    chosen = _spread(range(total), count)
    rest = _spread([place for place in range(total) if place not in set(chosen)], others)
    return chosen, rest if len(rest) >= min(FEWEST_OTHERS, others) else []


def _spread(places: Sequence[int], count: int) -> list[int]:
    """`count` of them, first and last among them, or all."""
    steps = np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)
    return [places[step] for step in np.unique(steps)]


def _rendered(indices: range, input_size_wh: Size, padding: float, seed: int) -> Subjects:
    people = [render_person(np.random.default_rng([seed, index])) for index in indices]
    matrices = [crops.person_matrix(person.box_xyxy, input_size_wh, padding) for person in people]
    pixels = [geometry.warp_image(p.image, matrix, input_size_wh) for p, matrix in zip(people, matrices, strict=True)]
    return Subjects(_as_network_sees(pixels), np.stack(matrices))


def _photographs(found: PersonSet, places: list[int], input_size_wh: Size, padding: float) -> Subjects:
    labelled = found.labelled
    persons = [labelled[place] for place in places]
    matrices = [crops.person_matrix(person.box_xyxy, input_size_wh, padding) for person in persons]
    pixels = [
        geometry.warp_image(read_image(person.image_path), matrix, input_size_wh)
        for person, matrix in zip(persons, matrices, strict=True)
    ]
    image_ids = list(dict.fromkeys(person.image_id for person in persons))
    truth = replace(found, persons=persons, image_ids=image_ids)
    return Subjects(_as_network_sees(pixels), np.stack(matrices), truth)


def _as_network_sees(pixels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """N pictures (H, W, 3) BGR as crops (N, 3, H, W) RGB."""
    return np.ascontiguousarray(np.stack(pixels)[..., ::-1].transpose(0, 3, 1, 2))
