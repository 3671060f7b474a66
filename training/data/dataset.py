"""Data sets that training reads: annotated photographs and rendered people, one crop per (epoch, index).

An item depends on (seed, epoch, part, index in it) alone, never on workers or on what was read before: that makes a
resumed run equal to one that never stopped. Data that are there several times are several parts, cropped differently.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from runtime.errors import InputError
from runtime.skeleton import COCO_17
from tfpose_edge import PoseConfig
from training.data import crops, occlusion
from training.data.crops import Augmentation, Crop
from training.data.damage import Damage
from training.data.persons import Person
from training.data.picture import read_image
from training.data.reduced import read_reduced, reduction_for
from training.data.rendered import render_person

OTHER_TRIES = 10
"""Pictures that are tried in place of one that cannot be read."""

Key = tuple[int, int]
"""(epoch, index)."""


class Batch(NamedTuple):
    """What the network and its criterion get; collated from items of the same fields without the leading B."""

    crops: Tensor
    """(B, 3, H, W) uint8 RGB."""
    keypoints: Tensor
    """(B, K, 2) float32, fractions of the crop."""
    labelled: Tensor
    """(B, K) bool."""
    named: Tensor
    """(B, K) bool."""
    area_px: Tensor
    """(B,) float32, square crop px."""
    matrix: Tensor
    """(B, 2, 3) float64, image px to crop px."""
    place: Tensor
    """(B,) int64, index in the data set of the person that is shown."""
    asked: Tensor
    """(B,) int64, index that was asked for: another where its own picture cannot be read."""


class PhotographedPeople(Dataset[Batch]):
    """Crops of annotated persons.

    Where a picture cannot be read, another person takes the item's place, drawn like the item itself.

    Args:
        persons: of one or more data sets, key points in the order of `config.keypoint_names`.
        config: gives crop size, padding and names.
        augmentation: None cuts the plain crop of the true box.
        seed: of the whole run.
        part: number of these data among those of the run.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        config: PoseConfig,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        part: int = 0,
    ) -> None:
        if not persons:
            raise InputError("the data has no person with labelled key points")
        self.persons, self.config, self.augmentation = list(persons), config, augmentation
        self.seed, self.part = seed, part
        self._of_picture: dict[Any, list[Person]] = {}
        for person in self.persons:
            self._of_picture.setdefault(person.image_path, []).append(person)

    def __len__(self) -> int:
        return len(self.persons)

    def __getitem__(self, key: Key) -> Batch:
        place, crop = self._readable(*key)
        return _item(crop, place, key[1])

    def why_replaced(self, index: int) -> str:
        """Why the person at `index` cannot be shown: annotation, path and reason."""
        person = self.persons[index]
        try:
            read_image(person.image_path)
        except InputError as error:
            return f"annotation {person.annotation_id}: {error}"
        return f"annotation {person.annotation_id}: {person.image_path}: could not be read at the first try"

    def _readable(self, epoch: int, index: int) -> tuple[int, Crop]:
        """Place and crop of the person at `index`, or of the first other one whose picture can be read."""
        item = [self.seed, epoch, index, *([2, self.part] if self.part else [])]  # the first part's is as it always was
        try:
            return index, self._crop(index, np.random.default_rng(item))
        except InputError as error:
            first = error
        for other in np.random.default_rng([*item, 1]).integers(len(self.persons), size=OTHER_TRIES):
            with contextlib.suppress(InputError):
                return int(other), self._crop(int(other), np.random.default_rng(item))
        raise first

    def _crop(self, place: int, rng: np.random.Generator) -> Crop:
        """A crop of the person at `place`; InputError if the picture cannot be read."""
        person, size, names = self.persons[place], self.config.input_size_wh, self.config.keypoint_names
        of_person = person.keypoints_xy, person.visible, person.named, person.area, names, size
        if not self.augmentation:
            matrix = crops.person_matrix(person.box_xyxy, size, self.config.padding)
            return crops.cut(read_image(person.image_path), *of_person, matrix)
        matrix, flip = crops.augmented_matrix(
            person.box_xyxy, person.keypoints_xy, person.visible, names, size, self.config.padding,
            self.augmentation, rng,
        )  # fmt: skip
        image, reduction = read_reduced(person.image_path, reduction_for(matrix))
        if self.augmentation.empty and rng.random() < self.augmentation.empty:
            size_wh = (image.shape[1] * reduction, image.shape[0] * reduction)
            points = person.keypoints_xy[person.visible > 0]
            empty = crops.empty_matrix(size_wh, points, self._boxes_beside(person), size, rng)
            matrix, flip = (matrix, flip) if empty is None else (empty, False)
        crop = crops.cut(image, *of_person, matrix, flip, reduction)
        return crops.disguise(crop, self.augmentation, rng, partial(self._patch, place, rng))

    def _boxes_beside(self, person: Person) -> occlusion.Array:
        """Boxes (N, 4) px of the others in the same picture, as far as the data know them."""
        beside = [p.box_xyxy for p in self._of_picture[person.image_path] if p.annotation_id != person.annotation_id]
        return np.concatenate([np.array(beside, dtype=np.float64).reshape(-1, 4), person.beside_xyxy])

    def _patch(self, index: int, rng: np.random.Generator, size_wh: tuple[int, int]) -> occlusion.Image:
        """A piece (height, width, 3) RGB of another picture of these data; rendered where no other can be read."""
        other = self.persons[(index + int(rng.integers(1, max(len(self.persons), 2)))) % len(self.persons)]
        if other.image_path == self.persons[index].image_path:
            return occlusion.rendered_piece(rng, size_wh)
        matrix = crops.person_matrix(other.box_xyxy, self.config.input_size_wh, self.config.padding)
        try:
            image, reduction = read_reduced(other.image_path, reduction_for(matrix))
            return occlusion.piece_of(image, other.box_xyxy / reduction, size_wh, rng)
        except InputError:  # a damaged picture is a matter of its own item
            return occlusion.rendered_piece(rng, size_wh)


class RenderedPeople(Dataset[Batch]):
    """Crops of people that are rendered on the fly; every epoch shows new ones.

    Args:
        count: persons per epoch.
        config: gives crop size, padding and names; names outside COCO's are never labelled.
        augmentation: as for photographs.
        seed: of the whole run.
    """

    def __init__(self, count: int, config: PoseConfig, augmentation: Augmentation | None = None, seed: int = 0) -> None:
        if count < 1:
            raise InputError(f"the number of rendered people is {count}; it must be at least 1")
        self.count, self.config, self.augmentation, self.seed = count, config, augmentation, seed
        index = {name: i for i, name in enumerate(COCO_17)}
        self._order = [index.get(name, -1) for name in config.keypoint_names]
        self._named = np.array(self._order) >= 0
        if not self._named.any():
            raise InputError(f"rendered people have the key points {', '.join(COCO_17)}; none of them is asked for")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Key) -> Batch:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        person = render_person(rng)
        keypoints_xy = person.keypoints_xy[self._order]
        visible = np.where(self._named, person.visible[self._order], 0)
        size, names = self.config.input_size_wh, self.config.keypoint_names
        matrix, flip = crops.person_matrix(person.box_xyxy, size, self.config.padding), False
        if self.augmentation:
            matrix, flip = crops.augmented_matrix(
                person.box_xyxy, keypoints_xy, visible, names, size, self.config.padding, self.augmentation, rng
            )
        crop = crops.cut(person.image, keypoints_xy, visible, self._named, person.area, names, size, matrix, flip)
        if self.augmentation:
            crop = crops.disguise(crop, self.augmentation, rng, partial(occlusion.rendered_piece, rng))
        return _item(crop, index, index)


class JoinedPeople(Dataset[Batch]):
    """Several data sets, one after the other."""

    def __init__(self, parts: Sequence[PhotographedPeople | RenderedPeople]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, key: Key) -> Batch:
        epoch, index = key
        part, first = self._part(index)
        item = part[epoch, index - first]
        return item._replace(place=item.place + first, asked=item.asked + first)

    def why_replaced(self, index: int) -> str:
        """As `PhotographedPeople.why_replaced`; rendered people are never replaced."""
        part, first = self._part(index)
        assert isinstance(part, PhotographedPeople)
        return part.why_replaced(index - first)

    def _part(self, index: int) -> tuple[PhotographedPeople | RenderedPeople, int]:
        """The part that holds an index, and the index of its first item."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part], int(self._ends[part]) - len(self.parts[part])


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys for one epoch, shuffled by (seed, epoch), from batch `start` on; this process's share of each.

    The last batch wraps round to the epoch's first keys, so that every batch is full.
    """

    def __init__(self, length: int, batch_size: int, seed: int, process_index: int = 0, num_processes: int = 1) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.process_index, self.num_processes = process_index, num_processes
        self.batches = -(-length // batch_size)
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.batches - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        order = np.resize(order, self.batches * self.batch_size)
        share = slice(self.process_index, None, self.num_processes)
        for batch in order.reshape(-1, self.batch_size)[self.start :]:
            yield [(self.epoch, int(index)) for index in batch[share]]


def watched(batches: Iterable[Batch], data: JoinedPeople, damage: Damage) -> Iterator[Batch]:
    """The batches as they are; items that show another person than they were asked for are noted as damage.

    Workers need no counters for that: each item says itself what it shows.
    """
    for batch in batches:
        damage.note(*(data.why_replaced(int(index)) for index in batch.asked[batch.asked != batch.place]))
        yield batch


def in_order(length: int, batch_size: int) -> list[list[Key]]:
    """Batches of keys that go through a data set once, each item once."""
    return [[(0, i) for i in range(start, min(start + batch_size, length))] for start in range(0, length, batch_size)]


def _item(crop: Crop, place: int, asked: int) -> Batch:
    return Batch(
        crops=torch.from_numpy(crop.image).permute(2, 0, 1).contiguous(),
        keypoints=torch.from_numpy(crop.keypoints),
        labelled=torch.from_numpy(crop.labelled.copy()),
        named=torch.from_numpy(crop.named.copy()),
        area_px=torch.tensor(crop.area_px, dtype=torch.float32),
        matrix=torch.from_numpy(crop.matrix),
        place=torch.tensor(place),
        asked=torch.tensor(asked),
    )
