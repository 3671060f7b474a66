"""`Pose.__call__` with any arguments: the right answer, or a ValueError that names the argument.

The network is the centroid model of the tests, whose answer a slow loop can compute: so a wrong crop, box or score, a
swapped channel or a shifted pixel shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import runtime
from runtime.geometry import MAX_COORDINATE_PX

CROP_WH = (48, 64)
TOLERANCE = 0.01  # of the crop's side: OpenCV cuts with fixed-point weights
SCORE_TOLERANCE = 0.035  # those weights are 1/64 px off in both directions, and levels are rounded
LEAST_LIGHT = 2.0  # mean of a channel in the crop, under which its centroid is not well defined
MAX_EXAMPLE_SIDE = 60
OTHER_DTYPES = ["float32", "float64", "int8", "int64", "bool", "complex64", "O", "U3", "u1"]

small = st.integers(1, MAX_EXAMPLE_SIDE)
odd_numbers = st.sampled_from([0, -1, 1e-9, 1e7, -1e7, 1e300, 2**70, np.nan, np.inf, -np.inf, None, "1", True])


@st.composite
def images(draw: Any) -> Any:
    """Legal pictures of every kind, and things that are none."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.one_of(
                st.none(),
                st.text(max_size=5),
                st.integers(),
                st.lists(st.integers(0, 255), max_size=4),
                st.builds(np.zeros, st.lists(st.integers(0, 4), max_size=5), st.sampled_from(OTHER_DTYPES)),
            )
        )
    shape = draw(st.sampled_from([(), (1,), (3,), (4,)]))
    height, width = draw(small), draw(small)
    if draw(st.integers(0, 49)) == 0:
        height, width = draw(st.sampled_from([(1, 40_000), (40_000, 1), (2, 32_768), (32_767, 2)]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = random.integers(0, 256, (height, width, *shape), dtype=np.uint8)
    for channel in range(image.size // (height * width)):  # light in a part only: so its middle tells what was cut
        top, left = random.integers(0, height), random.integers(0, width)
        plane = image.reshape(height, width, -1)[:, :, channel]
        plane[:top], plane[:, :left] = 0, 0
    if draw(st.booleans()):
        image = (image.astype(np.uint16) << 8) | 37
    return draw(st.sampled_from([lambda i: i, lambda i: i[::-1], lambda i: i[:, ::-1], np.asfortranarray]))(image)


@st.composite
def boxes(draw: Any) -> Any:
    """Legal boxes in and around a small picture, and things that are none."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return None
    if kind == 1:
        return draw(st.one_of(st.just([]), st.just(np.zeros((0, 4))), st.text(max_size=3), st.integers(), st.just({})))
    if kind == 2:
        return draw(st.lists(st.lists(st.one_of(st.floats(-99, 99), odd_numbers), min_size=3, max_size=5), max_size=3))
    corner = st.floats(-70, 90, width=32)
    rows = draw(st.lists(st.tuples(corner, corner, st.floats(-2, 150), st.floats(-2, 150)), min_size=1, max_size=4))
    made = [[x, y, x + width, y + height] for x, y, width, height in rows]
    return draw(st.sampled_from([list, np.array, lambda b: np.array(b, np.float32), lambda b: tuple(map(tuple, b))]))(
        made
    )


def is_legal_image(image: Any) -> bool:
    """By the words of the documentation."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype in (np.uint8, np.uint16)
        and image.size > 0
        and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4)))
    )


def legal_rows(given_boxes: Any, width: int, height: int) -> list[list[float]] | None:
    """The boxes as lists of four floats, None where the documentation refuses them."""
    if given_boxes is None:
        return [[0.0, 0.0, float(width), float(height)]]
    if isinstance(given_boxes, (str, int, dict)):
        return None
    rows: list[list[float]] = []
    for row in given_boxes:
        if len(row) != 4:
            return None
        try:
            x1, y1, x2, y2 = values = [float(value) for value in row]
        except (TypeError, ValueError, OverflowError):
            return None
        if not all(abs(value) <= MAX_COORDINATE_PX for value in values):  # NaN compares false as well
            return None
        inside = x1 < x2 and y1 < y2 and x2 > 0 and y2 > 0 and x1 < width and y1 < height
        if not inside or max(x2 - x1, y2 - y1) < 1:
            return None
        rows.append(values)
    return rows


def expected_pose(image: np.ndarray, row: list[float], padding: float) -> tuple[np.ndarray, np.ndarray]:
    """Of red, green and blue, sampled pixel by pixel.

    Returns:
        centroids (3, 2) in image px, NaN where a channel is dark; their brightest pixels (3,) in [0, 1].
    """
    pixels = image if image.ndim == 3 else image[:, :, None]
    pixels = (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.float64)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    x1, y1, x2, y2 = row
    width = max(x2 - x1, (y2 - y1) * CROP_WH[0] / CROP_WH[1]) * padding
    step = width / CROP_WH[0]  # image px per crop px
    left, top = (x1 + x2) / 2 - width / 2, (y1 + y2) / 2 - width * CROP_WH[1] / CROP_WH[0] / 2
    xs, ys = left + (np.arange(CROP_WH[0]) + 0.5) * step, top + (np.arange(CROP_WH[1]) + 0.5) * step
    crop = sample(pixels, xs - 0.5, ys - 0.5)
    keypoints_xy = np.full((3, 2), np.nan)
    for point, channel in enumerate((2, 1, 0)):
        light = crop[:, :, channel]
        if light.mean() >= LEAST_LIGHT:
            keypoints_xy[point] = [(light.sum(0) * xs).sum() / light.sum(), (light.sum(1) * ys).sum() / light.sum()]
    return keypoints_xy, crop.max(axis=(0, 1))[::-1] / 255


def sample(pixels: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Bilinear values (len(rows), len(columns), C), zero outside."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)))
    columns, rows = np.clip(columns, -1, width) + 1, np.clip(rows, -1, height) + 1
    left, top = np.minimum(columns.astype(int), width), np.minimum(rows.astype(int), height)
    x, y = (columns - left)[None, :, None], (rows - top)[:, None, None]
    corner = [[padded[np.ix_(top + j, left + i)] for i in (0, 1)] for j in (0, 1)]
    upper, lower = (one * (1 - x) + other * x for one, other in corner)
    return upper * (1 - y) + lower * y  # type: ignore[no-any-return]


def check_arguments(pose: runtime.Pose, cases: int, shrink: bool = True) -> None:
    """Raise AssertionError, with the smallest case that hypothesis finds, when one of `cases` ends differently.

    Without `shrink`, with the first case.
    """

    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    all_checks = list(HealthCheck)

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=all_checks,
        phases=phases,
    )
    @given(images(), boxes())
    def check(image: Any, given_boxes: Any) -> None:
        rows = legal_rows(given_boxes, image.shape[1], image.shape[0]) if is_legal_image(image) else None
        try:
            result = pose(image, given_boxes)
        except ValueError as error:
            assert rows is None, f"refused though legal: {error}"
            assert ("image_bgr" if not is_legal_image(image) else "boxes_xyxy") in str(error)
            return
        assert rows is not None, "answered though not legal"
        assert result.keypoints_xy.shape == (len(rows), 3, 2) and result.image_size_wh == (
            image.shape[1],
            image.shape[0],
        )
        assert result.boxes_xyxy.tolist() == np.array(rows, dtype=np.float32).reshape(-1, 4).tolist()
        for row, found, scores in zip(rows, result.keypoints_xy, result.scores, strict=True):
            expected, expected_scores = expected_pose(image, row, pose.sidecar.padding)
            width = max(row[2] - row[0], (row[3] - row[1]) * CROP_WH[0] / CROP_WH[1]) * pose.sidecar.padding
            distances = np.abs(found - expected) / (width * np.array([1, CROP_WH[1] / CROP_WH[0]]))
            assert not (distances > TOLERANCE).any(), f"{found} instead of {expected}"
            assert np.abs(scores - expected_scores).max() <= SCORE_TOLERANCE, f"{scores} instead of {expected_scores}"

    check()
