"""Heat-map targets are unbiased: the centre of each Gaussian is the key point, not the nearest pixel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.criterion import gaussian_heatmaps

inside = st.floats(0.05, 0.95)


def centre_of(heatmap):
    """(x, y) in heat-map indices: the peak of the parabola through the logarithms around the brightest pixel."""
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    log = heatmap.double().log()
    sides = ((log[row, column - 1], log[row, column + 1]), (log[row - 1, column], log[row + 1, column]))
    offsets = [float((after - before) / (2 * (2 * log[row, column] - before - after))) for before, after in sides]
    return column + offsets[0], row + offsets[1]


def test_by_hand():
    """A point 3 px right of and 5.25 px below a 192 x 256 crop's corner lies at 0.25, 0.8125 of the 48 x 64 map."""
    [[heatmap]] = gaussian_heatmaps(torch.tensor([[[3 / 192, 5.25 / 256]]]), 64, 48)
    x, y = 3 * 48 / 192 - 0.5, 5.25 * 64 / 256 - 0.5
    assert (x, y) == (0.25, 0.8125)
    assert float(heatmap[1, 0]) == pytest.approx(math.exp(-(0.25**2 + 0.1875**2) / (2 * 2**2)), abs=1e-6)
    assert float(heatmap[4, 2]) == pytest.approx(math.exp(-(1.75**2 + 3.1875**2) / (2 * 2**2)), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (96, 72), (32, 24)])
@settings(max_examples=50, deadline=None)
@given(x=inside, y=inside)
def test_the_centre_comes_back(height, width, x, y):
    """Within 1e-3 px of the map, and so 4e-3 px of the crop."""
    [[heatmap]] = gaussian_heatmaps(torch.tensor([[[x, y]]], dtype=torch.float32), height, width)
    found = centre_of(heatmap)
    assert found == pytest.approx((x * width - 0.5, y * height - 0.5), abs=1e-3)


def test_the_crop_s_middle_lies_between_the_map_s_middle_pixels():
    [[heatmap]] = gaussian_heatmaps(torch.tensor([[[0.5, 0.5]]]), 64, 48)
    torch.testing.assert_close(heatmap, heatmap.flip(0, 1))
    assert float(heatmap[31, 23]) == float(heatmap[32, 24]) == float(heatmap.max())
