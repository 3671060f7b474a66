"""One pass over a data set: the key points of everybody, and the query attention averaged over all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.persons import Person
from training.figures.observation import Observer
from training.figures.people import People, to_image

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """What a network does on a data set of N persons."""

    persons: list[Person]
    """N, those whose picture can be read."""
    keypoints_xy: Array
    """(N, K, 2) px of their images."""
    query_attention: Array | None
    """(N_D, K, K) of every query (row) to every query (column), mean over persons and heads; None without q2q."""


def take_survey(observer: Observer, people: People, batch_size: int = 16, progress: bool = False) -> Survey:
    """Run the network on the plain crops of all persons."""
    persons: list[Person] = []
    keypoints_xy, attention = [], []
    for batch in people.batches(batch_size, progress):
        seen = observer(batch.crops)
        persons += [people.persons[int(place)] for place in batch.place]
        keypoints_xy.append(to_image(seen.keypoints, batch.matrix, observer.config.input_size_wh))
        if seen.query_attention is not None:
            attention.append(seen.query_attention.mean(2).sum(1))  # (N_D, K, K)
    mean = np.sum(attention, axis=0) / len(persons) if attention else None
    return Survey(persons, np.concatenate(keypoints_xy), mean)
