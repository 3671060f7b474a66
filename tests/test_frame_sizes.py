"""Films whose frames change their size on the way."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import dots_image

import runtime
from runtime.source import RawFrame, Source


class Film(Source):
    """Pictures in memory."""

    images: list

    def __iter__(self):
        for index, image in enumerate(self.images):
            yield RawFrame(index, index / self.fps, self.name, image)


@pytest.mark.parametrize("several", [False, True])
def test_frames_of_another_size_are_looked_at_anew(centroid_onnx, several):
    """The person stands where the smaller frames have no pixels any more."""
    film = Film("video", "film")
    large = dots_image((640, 480), np.array([[560.0, 400], [520, 430], [600, 440]]), radius=8)
    small = dots_image((320, 240), np.array([[60.0, 80], [40, 120], [90, 130]]), radius=8)
    film.images = [large] * 3 + [small] * 3 + [large] * 3
    boxes = {480: [[500, 360, 630, 470]], 240: [[20, 60, 120, 150]]}
    detector = (lambda image: boxes[image.shape[0]]) if several else None
    with runtime.Pose(centroid_onnx, threads=1, detector=detector, smoothing=False) as pose:
        results = [frame.result for frame in pose.video(film)]
    assert [len(result) for result in results] == [1] * 9
    assert [result.image_size_wh[0] for result in results] == [640] * 3 + [320] * 3 + [640] * 3
    np.testing.assert_allclose(results[4].keypoints_xy[0, 0], [60, 80], atol=2)
    np.testing.assert_allclose(results[8].keypoints_xy[0, 0], [560, 400], atol=2)
    assert [result.ids.tolist() for result in results] == [[1]] * 3 + [[2]] * 3 + [[1]] * 3


def test_smoothing_begins_anew_with_another_size(centroid_onnx):
    """Whoever stands at the same place of a larger frame is not dragged there from the smaller one."""
    film = Film("video", "film")
    points = np.array([[40.0, 30], [60, 220], [280, 100]])
    scales = [1.0] * 3 + [1.25] * 3
    film.images = [
        dots_image((round(640 * scale), round(480 * scale)), points * scale, radius=round(8 * scale))
        for scale in scales
    ]
    found = []
    for smoothing in (True, False):
        with runtime.Pose(centroid_onnx, threads=1, smoothing=smoothing) as pose:
            found.append([frame.result.keypoints_xy for frame in pose.video(film)])
    assert [len(one) for one in found[0]] == [1] * 6
    np.testing.assert_allclose(found[0][3], found[1][3], atol=1e-3)
