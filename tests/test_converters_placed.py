"""Samplers at pixel positions equal the definition of deformable sampling, in parts and whole."""

from __future__ import annotations

import pytest
import torch
from test_samplers import SHAPES, inputs, oracle

from converters.placed import PLACED
from tfpose_edge.attention import EXPORTABLE
from tfpose_edge.attention.sample_then_project import share_inside


def placed(value, reference, offsets, logits, shapes):
    """The same inputs at pixel positions: x, y (B, Q, H, L * P)."""
    n_points = offsets.shape[3] // len(shapes)
    sizes_wh = torch.tensor([(w, h) for h, w in shapes for _ in range(n_points)], dtype=offsets.dtype)
    return (reference[:, :, None, None] * sizes_wh + offsets - 0.5).unbind(-1), n_points


def run(name, given, chunk=None):
    value, _, _, logits, shapes = given
    (x, y), n_points = placed(*given)
    sampler = PLACED[name](shapes, value.shape[2], n_points).to(value.dtype)
    if chunk:
        sampler.chunk = chunk
    plan = sampler.plan(x, y, logits)
    return sampler(value, *plan), sampler.inside(x, y, logits, plan)


def test_every_exportable_sampler_has_a_placed_form():
    assert tuple(PLACED) == EXPORTABLE


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("shapes", [*SHAPES, ((6, 1), (1, 5))])
def test_placed_samplers_equal_the_definition(name, batch, shapes):
    given = inputs(0, batch, 5, 2, 6, 3, shapes, torch.float64, spread=2.0)
    out, inside = run(name, given)
    torch.testing.assert_close(out, oracle(*given), atol=1e-9, rtol=0)
    torch.testing.assert_close(inside, share_inside(*given[1:]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", PLACED)
def test_edges_whole_pixels_and_far_outside(name):
    shapes = ((4, 3), (2, 2))
    value, _, offsets, logits, _ = inputs(1, 1, 8, 1, 2, 1, shapes, torch.float64)
    points = [
        [0, 0],
        [1, 1],
        [0.5 / 3, 0.5 / 4],
        [2.5 / 3, 3.5 / 4],
        [-9, 9],
        [1e6, -1e6],
        [0.5, 0],
        [-0.5 / 3, 4.5 / 4],
    ]
    given = (value, torch.tensor([points]).double(), torch.zeros_like(offsets), logits, shapes)
    torch.testing.assert_close(run(name, given)[0], oracle(*given), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", PLACED)
def test_large_maps_in_fp32(name):
    given = inputs(5, 1, 9, 2, 4, 4, ((64, 48), (32, 24)), torch.float32, spread=6.0)
    assert (run(name, given)[0].double() - oracle(*given)).abs().max() < 1e-4


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_look_ups_in_pieces_are_the_same(chunk):
    given = inputs(2, 2, 5, 2, 6, 3, ((5, 7), (3, 4)), torch.float64)
    torch.testing.assert_close(run("gather", given, chunk)[0], oracle(*given), atol=1e-9, rtol=0)
