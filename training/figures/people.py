"""The persons that figures are made of: all of a data set, or a few of them on crops fine enough to print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from runtime import geometry
from runtime.errors import InputError
from tfpose_edge import PoseConfig
from training.data.crops import person_matrix
from training.data.dataset import Batch, PhotographedPeople, in_order
from training.data.picture import read_image
from training.data.reading import load_labelled

Array = NDArray[np.float64]
PAPER = 236  # grey level
PRINTED_HEIGHT = 512  # px, least height of a crop that is printed


@dataclass(frozen=True)
class Shown:
    """A person whose crop is printed."""

    crops: Tensor
    """(1, 3, H, W) uint8 RGB, as the network sees it."""
    image: NDArray[np.uint8]
    """(h, w, 3) RGB: the same region, finer."""
    truth: Array
    """(K, 2), annotated key points in fractions of the crop."""
    labelled: NDArray[np.bool_]
    """(K,)."""


class People:
    """The labelled persons of DATA, key points in the order of a network's.

    Raises:
        InputError: as `training.data.reading.load_labelled`, or nobody is labelled.
    """

    def __init__(self, data: str, config: PoseConfig) -> None:
        [self.persons], self.damage = load_labelled([data], config.keypoint_names)
        self.config, self._crops = config, PhotographedPeople(self.persons, config)

    def batches(self, size: int, progress: bool = False) -> Iterator[Batch]:
        """Plain crops of all persons in order; pictures that cannot be read are left out and noted as damage."""
        from tqdm import tqdm

        for keys in tqdm(in_order(len(self.persons), size), "persons", leave=False, disable=not progress):
            items = [self._crops[key] for key in keys]
            self.damage.note(*(self._crops.why_replaced(int(i.asked)) for i in items if i.asked != i.place))
            read = [item for item in items if item.asked == item.place]
            if read:
                yield default_collate(read)

    def choose(self, names: Sequence[str], count: int) -> list[Shown]:
        """Up to `count` persons, evenly over those who have most of the key points `names` labelled.

        Those whose picture cannot be read are noted as damage and left out; InputError if nobody is left.
        """
        columns = [self.config.keypoint_names.index(name) for name in names]
        labelled = np.array([(person.visible[columns] > 0).sum() for person in self.persons])
        places = np.flatnonzero(labelled == labelled.max())
        shown = []
        for place in places[spread(len(places), count)].tolist():
            try:
                shown.append(self.show(place))
            except InputError as error:
                self.damage.note(str(error))
        if not shown:
            raise InputError("none of the chosen persons' pictures can be read")
        return shown

    def show(self, place: int) -> Shown:
        """The person at a place; InputError if the picture cannot be read."""
        item = self._crops[0, place]
        if item.place != item.asked:
            raise InputError(self._crops.why_replaced(place))
        person, (width, height) = self.persons[place], self.config.input_size_wh
        scale = max(1, -(-PRINTED_HEIGHT // height))
        printed_wh = (width * scale, height * scale)
        matrix = person_matrix(person.box_xyxy, printed_wh, self.config.padding)
        image = cut_printed(read_image(person.image_path), matrix, printed_wh)
        return Shown(item.crops[None], image, item.keypoints.double().numpy(), item.labelled.numpy())


def cut_printed(image_bgr: geometry.Image, matrix: Array, size_wh: tuple[int, int]) -> geometry.Image:
    """The crop (h, w, 3) RGB that a matrix (2, 3) describes; paper, not black, where it shows none of the image."""
    crop = geometry.warp_image(image_bgr, matrix, size_wh)[..., ::-1]
    covered = geometry.warp_image(np.full_like(image_bgr, 255), matrix, size_wh)
    return (crop + PAPER * (1 - covered / 255)).astype(np.uint8)  # type: ignore[no-any-return]


def spread(length: int, count: int) -> NDArray[np.int64]:
    """Up to `count` different places, evenly over 0..length - 1."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))


def to_image(keypoints: Array, matrices: Tensor, input_size_wh: tuple[int, int]) -> Array:
    """Key points (B, K, 2) in fractions of crops to px of their images, (B, K, 2), by the crops' matrices (B, 2, 3)."""
    inverses = [geometry.invert_matrix(matrix) for matrix in matrices.to(torch.float64).numpy()]
    crop_xy = keypoints * np.asarray(input_size_wh)
    return np.stack([geometry.transform_points(xy, inverse) for xy, inverse in zip(crop_xy, inverses, strict=True)])
