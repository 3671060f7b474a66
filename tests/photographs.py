"""Small annotated data sets that tests write: rendered people as JPEG pictures with COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from runtime.skeleton import COCO_17
from training.data.rendered import render_person


def write_data_set(folder: Path, count: int = 6, names=COCO_17, seed: int = 0) -> str:
    """Write `count` pictures and annotations.json; returns the DATA argument. `names` picks and orders key points."""
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        person = render_person(np.random.default_rng([seed, i]), (192, 256))
        cv2.imwrite(str(folder / "images" / f"{i:03}.png"), person.image)
        rows = np.column_stack([person.keypoints_xy - 0.5, person.visible])
        rows[person.visible == 0] = 0
        rows = np.array([rows[COCO_17.index(n)] if n in COCO_17 else (10.0, 10.0, 2.0) for n in names])
        x1, y1, x2, y2 = person.box_xyxy
        images.append({"id": i + 1, "file_name": f"{i:03}.png", "width": 192, "height": 256})
        annotations.append(
            {"id": 100 + i, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "keypoints": rows.ravel().tolist(),
             "num_keypoints": int((rows[:, 2] > 0).sum()), "bbox": [x1, y1, x2 - x1, y2 - y1], "area": person.area,
             "head_size": person.head_size}
        )  # fmt: skip
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(names)}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return f"{folder / 'annotations.json'}:{folder / 'images'}"
