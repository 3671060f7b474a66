"""A predictor's answers on a data set, as COCO results; pictures that cannot be read are left out and named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtime.errors import InputError
from training.data.damage import Damage
from training.data.persons import Person, PersonSet
from training.data.picture import Picture, read_image
from training.predictor import Array, Predictor
from training.results import check_detections

SCORE_MODES = {
    "keypoint": "mean score of the key points",
    "box": "the detector's score of the box",
    "box*keypoint": "their product",
}


@dataclass(frozen=True)
class Found:
    """One prediction."""

    person: Person
    """The annotated person, or with detector boxes a stand-in that has the image and the box."""
    keypoints_xy: Array
    """(K, 2) px, in the order of the shared names."""
    scores: Array
    """(K,)."""
    box_score: float


def answer(
    predictor: Predictor, truth: PersonSet, file_names: Sequence[str], boxes: list[dict[str, Any]] | None,
    score_mode: str, damage: Damage, progress: bool = False,
) -> tuple[list[dict[str, Any]], PersonSet]:  # fmt: skip
    """Results lines in the order of the data's own key points, and the truth without pictures that cannot be read.

    Args:
        predictor: has all names of `truth`, and maybe more.
        truth: the data set with the shared names alone, at least one person labelled.
        file_names: key points of the data set.
        boxes: a detector's; None takes the true boxes.
        score_mode: a key of `SCORE_MODES`.
        damage: gets a line for each picture that cannot be read.
        progress: show a bar on stderr.
    """
    asked = _detected(boxes, truth) if boxes is not None else [(person, 1.0) for person in truth.labelled]
    unreadable: set[Picture] = set()
    columns = [predictor.names.index(name) for name in truth.names]
    answers = _run(predictor, asked, columns, damage, unreadable, progress)
    own = [list(file_names).index(name) for name in truth.names]
    lines = [_result(found, score_mode, own, len(file_names)) for found in answers]
    for line in lines if boxes is not None else ():
        del line["annotation_id"]  # a detector's box belongs to nobody
    return lines, truth.without(unreadable)


def _run(
    predictor: Predictor, asked: Sequence[tuple[Person, float]], columns: list[int], damage: Damage,
    unreadable: set[Picture], progress: bool,
) -> Iterator[Found]:  # fmt: skip
    """Predictions for (person, box score), one call per image; what cannot be read goes to `unreadable`."""
    from tqdm import tqdm

    by_image: dict[Picture, list[tuple[Person, float]]] = {}
    for person, score in asked:
        by_image.setdefault(person.image_path, []).append((person, score))
    with tqdm(by_image.items(), "images", leave=False, disable=not progress) as shown:
        for path, people in shown:
            try:
                image = read_image(path)
            except InputError as error:
                damage.note(str(error))
                unreadable.add(path)
                continue
            boxes = np.stack([person.box_xyxy for person, _ in people])
            try:
                keypoints_xy, scores = predictor(image, boxes)
            except InputError as error:
                raise InputError(f"{path.name}: {error}") from error
            for row, (person, box_score) in enumerate(people):
                yield Found(person, keypoints_xy[row][columns], scores[row][columns], box_score)


def _result(found: Found, score_mode: str, columns: list[int], num_keypoints: int) -> dict[str, Any]:
    """A results line in the data set's own order of key points; zeros where the model has none."""
    mean = float(found.scores.mean())
    score = {"keypoint": mean, "box": found.box_score, "box*keypoint": found.box_score * mean}[score_mode]
    keypoints = np.zeros((num_keypoints, 3))
    keypoints[columns] = np.column_stack([found.keypoints_xy - 0.5, found.scores])  # pixel indices
    return {
        "image_id": found.person.image_id,
        "annotation_id": found.person.annotation_id,
        "category_id": 1,
        "keypoints": [round(float(value), 4) for value in keypoints.ravel()],
        "score": score,
    }


def _detected(boxes: list[dict[str, Any]], truth: PersonSet) -> list[tuple[Person, float]]:
    """Stand-ins for the detector's boxes on the data's images, and their scores; boxes without area are left out."""
    stand_in = truth.labelled[0]
    asked = []
    for box in check_detections(boxes, truth):
        x, y, width, height = (float(v) for v in box["bbox"])
        if width > 0 and height > 0:
            person = replace(
                stand_in, image_id=box["image_id"], image_path=truth.image_paths[box["image_id"]],
                box_xyxy=np.array([x, y, x + width, y + height]),
            )  # fmt: skip
            asked.append((person, float(box["score"])))
    return asked
