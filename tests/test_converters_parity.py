"""Parity: distances in pixels, limits, batches, and models that do not move."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converters.errors import ConversionError
from converters.parity import Outputs, artifact_outputs, compare

SIZE_WH = (100, 200)
RANDOM = np.random.default_rng(0)
EXPECTED = Outputs(RANDOM.random((5, 17, 2), dtype=np.float32), RANDOM.random((5, 17), dtype=np.float32))


class Echo:
    """Answers a crop that is filled with i with row i of `EXPECTED`; remembers the batches."""

    def __init__(self):
        self.seen = []

    def infer(self, crops):
        self.seen.append(crops)
        rows = crops[:, 0, 0, 0].astype(int) - 1
        return EXPECTED.keypoints[rows], EXPECTED.scores[rows]

    def close(self):
        pass


def test_distances_are_in_pixels_of_the_crop():
    keypoints = EXPECTED.keypoints.copy()
    keypoints[0, 0] += np.float32([0.03, 0.02])  # 3 px and 4 px
    parity = compare(EXPECTED, Outputs(keypoints, EXPECTED.scores + np.float32(0.25)), SIZE_WH, "here")
    assert parity.max_px == pytest.approx(5, abs=1e-3) and parity.p99_px < 5
    assert parity.within_1px == parity.within_4px == pytest.approx(84 / 85)
    assert parity.max_score_difference == pytest.approx(parity.mean_score_difference) == pytest.approx(0.25)
    assert (parity.engine, parity.images, parity.meaningful, parity.accepted) == ("here", 5, True, False)


@pytest.mark.parametrize(
    ("max_px", "score", "number"), [(0.05, 0.01, 0), (0.051, 0, 1), (np.nan, 0, 1), (0, np.nan, 1), (1, 1, 2)]
)
def test_limits(max_px, score, number):
    parity = compare(EXPECTED, EXPECTED, SIZE_WH, "here")
    parity = dataclasses.replace(parity, max_px=max_px, max_score_difference=score)
    assert len(parity.violations("fp32")) == number


def test_nan_is_not_parity():
    keypoints = EXPECTED.keypoints.copy()
    keypoints[3, 4, 0] = np.nan
    assert compare(EXPECTED, Outputs(keypoints, EXPECTED.scores), SIZE_WH, "here").violations("fp32")


def test_key_points_that_stay_are_not_meaningful():
    still = Outputs(EXPECTED.keypoints[:1] + np.float32(1e-3) * EXPECTED.keypoints, EXPECTED.scores)
    parity = compare(still, still, SIZE_WH, "here")
    assert not parity.meaningful and 0 < parity.motion_px < 1


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_batches_are_filled_and_cut(batch):
    crops = np.broadcast_to(np.arange(1, 6, dtype=np.uint8)[:, None, None, None], (5, 3, 4, 4))
    echo = Echo()
    outputs = artifact_outputs(echo, crops, batch, "float32", EXPECTED)
    np.testing.assert_array_equal(outputs.keypoints, EXPECTED.keypoints)
    np.testing.assert_array_equal(outputs.scores, EXPECTED.scores)
    assert {(seen.shape, seen.dtype.name) for seen in echo.seen} == {((batch, 3, 4, 4), "float32")}
    assert not echo.seen[-1][5 - batch * (len(echo.seen) - 1) :].any()


def test_wrong_shapes_are_an_error():
    class Swapped(Echo):
        def infer(self, crops):
            return super().infer(crops)[::-1]

    with pytest.raises(ConversionError, match="shapes"):
        artifact_outputs(Swapped(), np.ones((5, 3, 4, 4), dtype=np.uint8), 1, "uint8", EXPECTED)
