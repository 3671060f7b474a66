"""A predictor's answers on a data set, as COCO results; pictures that cannot be read are left out and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InputError
from training.data.damage import Damage
from training.data.persons import PersonSet
from training.data.picture import Picture, read_image
from training.predictor import Array, Predictor
from training.results import check_detections
from training.suppression import suppress

SCORE_MODES = {
    "keypoint": "mean score of the key points",
    "box": "the detector's score of the box",
    "box*keypoint": "their product",
}
PERSON = 1
"""COCO's category of people."""


@dataclass(frozen=True)
class Asked:
    """A box in which somebody's key points are asked for."""

    image_id: int
    picture: Picture
    box_xyxy: Array
    """(4,) px."""
    box_score: float = 1.0
    """1 for a true box."""
    annotation_id: int | None = None
    """Whose true box it is; a detector's belongs to nobody."""


@dataclass(frozen=True)
class Found:
    """One prediction."""

    asked: Asked
    keypoints_xy: Array
    """(K, 2) px, in the order of the names that were asked for."""
    scores: Array
    """(K,)."""

    def score(self, mode: str) -> float:
        """What ranks this prediction; `mode` is a key of `SCORE_MODES`."""
        mean = float(self.scores.mean())
        box = self.asked.box_score
        return {"keypoint": mean, "box": box, "box*keypoint": box * mean}[mode]


def answer(
    predictor: Predictor, truth: PersonSet, file_names: Sequence[str], boxes: list[dict[str, Any]] | None,
    score_mode: str, damage: Damage, oks_nms: float | None = None, progress: bool = False,
) -> tuple[list[dict[str, Any]], PersonSet]:  # fmt: skip
    """Results lines in the order of the data's own key points, and the truth without pictures that cannot be read.

    Args:
        predictor: has all names of `truth`, and maybe more.
        truth: the data set with the shared names alone, at least one person labelled.
        file_names: key points of the data set.
        boxes: a detector's; None takes the true boxes.
        score_mode: a key of `SCORE_MODES`.
        damage: gets a line for each picture that cannot be read.
        oks_nms: threshold of `suppression.suppress`; None keeps all.
        progress: show a bar on stderr.
    """
    asked = asked_by_detector(boxes, truth) if boxes is not None else asked_by_truth(truth)
    unreadable: set[Picture] = set()
    found = predict(predictor, asked, truth.names, damage, unreadable, progress)
    answers = found if oks_nms is None else without_doubles(found, truth.names, score_mode, oks_nms)
    own = [list(file_names).index(name) for name in truth.names]
    lines = [_result(one, score_mode, own, len(file_names)) for one in answers]
    return lines, truth.without(unreadable)


def asked_by_truth(truth: PersonSet) -> list[Asked]:
    """The labelled persons' own boxes."""
    return [Asked(p.image_id, p.image_path, p.box_xyxy, annotation_id=p.annotation_id) for p in truth.labelled]


def asked_by_detector(boxes: Sequence[dict[str, Any]], images: PersonSet) -> list[Asked]:
    """A detector's boxes of people on the chosen images; those of other categories or without area are left out."""
    asked = []
    for box in check_detections(boxes, images):
        x, y, width, height = (float(v) for v in box["bbox"])
        if width > 0 and height > 0 and box.get("category_id", PERSON) == PERSON:
            place = np.array([x, y, x + width, y + height])
            asked.append(Asked(box["image_id"], images.image_paths[box["image_id"]], place, float(box["score"])))
    return asked


def predict(
    predictor: Predictor, asked: Iterable[Asked], names: Sequence[str], damage: Damage, unreadable: set[Picture],
    progress: bool = False,
) -> Iterator[Found]:  # fmt: skip
    """Predictions of the key points `names`, one call and one run of results per picture.

    What cannot be read goes to `unreadable`, and a line to `damage`.
    """
    from tqdm import tqdm

    columns = [predictor.names.index(name) for name in names]
    by_picture: dict[Picture, list[Asked]] = {}
    for one in asked:
        by_picture.setdefault(one.picture, []).append(one)
    with tqdm(by_picture.items(), "images", leave=False, disable=not progress) as shown:
        for path, people in shown:
            try:
                image = read_image(path)
            except InputError as error:
                damage.note(str(error))
                unreadable.add(path)
                continue
            boxes = np.stack([one.box_xyxy for one in people])
            try:
                keypoints_xy, scores = predictor(image, boxes)
            except InputError as error:
                raise InputError(f"{path.name}: {error}") from error
            for row, one in enumerate(people):
                yield Found(one, keypoints_xy[row][columns], scores[row][columns])


def without_doubles(found: Iterable[Found], names: Sequence[str], score_mode: str, threshold: float) -> list[Found]:
    """The predictions that `suppression.suppress` keeps on each image."""
    by_image: dict[int, list[Found]] = {}
    for one in found:
        by_image.setdefault(one.asked.image_id, []).append(one)
    kept = []
    for group in by_image.values():
        keypoints_xy, boxes = np.stack([f.keypoints_xy for f in group]), np.stack([f.asked.box_xyxy for f in group])
        scores = np.array([f.score(score_mode) for f in group])
        kept += [group[row] for row in suppress(keypoints_xy, scores, boxes, names, threshold)]
    return kept


def _result(found: Found, score_mode: str, columns: list[int], num_keypoints: int) -> dict[str, Any]:
    """A results line in the data set's own order of key points; zeros where the model has none."""
    keypoints = np.zeros((num_keypoints, 3))
    keypoints[columns] = np.column_stack([found.keypoints_xy - 0.5, found.scores])  # pixel indices
    whose = {} if found.asked.annotation_id is None else {"annotation_id": found.asked.annotation_id}
    return {
        "image_id": found.asked.image_id,
        **whose,
        "category_id": PERSON,
        "keypoints": [round(float(value), 4) for value in keypoints.ravel()],
        "score": found.score(score_mode),
    }
