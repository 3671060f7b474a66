"""Every sampler against the slow, obvious definition of deformable sampling."""

from __future__ import annotations

import math
import platform
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpose_edge.attention import EXPORTABLE, SAMPLERS, choose_sampler, get_sampler, resolve_sampler

HAS_TRITON = sys.platform == "linux" and platform.machine() == "x86_64"  # where `[dev]` installs it
NAMES = [name for name in SAMPLERS if HAS_TRITON or name in EXPORTABLE]


def oracle(value, reference_points, sampling_offsets, attention_logits, spatial_shapes):
    """Double loop over queries and samples, in Python floats."""
    batch, _, n_heads, head_dim = value.shape
    queries, samples = sampling_offsets.shape[1], sampling_offsets.shape[3]
    n_points = samples // len(spatial_shapes)
    starts = [sum(h * w for h, w in spatial_shapes[:level]) for level in range(len(spatial_shapes))]
    weights = attention_logits.double().softmax(-1)
    out = torch.zeros(batch, queries, n_heads, head_dim, dtype=torch.float64)
    for b in range(batch):
        for q in range(queries):
            for h in range(n_heads):
                for s in range(samples):
                    height, width = spatial_shapes[s // n_points]
                    x = float(reference_points[b, q, 0]) * width + float(sampling_offsets[b, q, h, s, 0]) - 0.5
                    y = float(reference_points[b, q, 1]) * height + float(sampling_offsets[b, q, h, s, 1]) - 0.5
                    for row in (math.floor(y), math.floor(y) + 1):
                        for column in (math.floor(x), math.floor(x) + 1):
                            if 0 <= row < height and 0 <= column < width:
                                share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[b, q, h, s]
                                out[b, q, h] += share * value[b, starts[s // n_points] + row * width + column, h]
    return out.reshape(batch, queries, n_heads * head_dim)


def inputs(seed, batch, queries, n_heads, head_dim, n_points, spatial_shapes, dtype, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    tokens, samples = sum(h * w for h, w in spatial_shapes), len(spatial_shapes) * n_points
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return (
        random(batch, tokens, n_heads, head_dim).to(dtype),
        (random(batch, queries, 2) * 0.4 + 0.5).to(dtype),
        (random(batch, queries, n_heads, samples, 2) * spread).to(dtype),
        random(batch, queries, n_heads, samples).to(dtype),
        spatial_shapes,
    )


SHAPES = [  # maps of up to 16 px across
    ((5, 7), (3, 4)),
    ((1, 1),),
    ((9, 3), (5, 2), (1, 1)),
    ((8, 6), (4, 3), (2, 2), (1, 1)),
    ((22, 16), (11, 8)),
    ((4, 3), (2, 2), (2, 1), (1, 1), (3, 3)),
]
SHAPES_AND_POINTS = [*((shapes, 3) for shapes in SHAPES), (((6, 5),), 8), (((5, 6),), 1)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shapes", "n_points"), SHAPES_AND_POINTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_sampler_equals_the_definition(name, shapes, n_points, dtype, tolerance):
    given_inputs = inputs(0, 2, 5, 2, 6, n_points, shapes, dtype)
    difference = (get_sampler(name)(*given_inputs).double() - oracle(*given_inputs)).abs().max()
    assert difference <= tolerance, f"{name}: {difference}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shapes", [((64, 48), (32, 24)), ((20, 33),)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_large_maps(name, shapes, dtype, tolerance):
    given_inputs = inputs(5, 1, 9, 2, 4, 4, shapes, dtype, spread=6.0)
    difference = (get_sampler(name)(*given_inputs).double() - oracle(*given_inputs)).abs().max()
    assert difference <= tolerance, f"{name}: {difference}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_edges_centres_and_far_outside(name, dtype, tolerance):
    shapes = ((4, 3),)
    value, _, offsets, logits, _ = inputs(1, 1, 7, 1, 2, 1, shapes, dtype)
    reference = torch.tensor([[[0, 0], [1, 1], [0.5 / 3, 0.5 / 4], [2.5 / 3, 3.5 / 4], [-9, 9], [1e6, -1e6], [0.5, 0]]])
    given_inputs = (value, reference.to(dtype), torch.zeros_like(offsets), logits, shapes)
    difference = (get_sampler(name)(*given_inputs).double() - oracle(*given_inputs)).abs().max()
    assert difference <= tolerance, f"{name}: {difference}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "queries"), [(0, 3), (2, 0)])
def test_no_images_or_no_queries(name, batch, queries):
    *tensors, shapes = inputs(0, 2, 3, 2, 4, 2, ((3, 2), (1, 2)), torch.float32)
    tensors = [tensors[0][:batch], *(t[:batch, :queries] for t in tensors[1:])]
    tensors = [t.detach().clone().requires_grad_() for t in tensors]
    out = get_sampler(name)(*tensors, shapes)
    assert out.shape == (batch, queries, 8)
    for tensor, gradient in zip(tensors, torch.autograd.grad(out.sum(), tensors), strict=True):
        assert gradient.shape == tensor.shape and not gradient.any()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("gather", "float_gather", "bag")]
)  # which refuse it
def test_a_place_that_is_no_number_is_not_hidden(name):
    *tensors, shapes = inputs(0, 1, 3, 1, 4, 2, ((3, 2), (1, 2)), torch.float32)
    tensors[2][0, 1, 0, 2, 1] = math.nan
    assert get_sampler(name)(*tensors, shapes).isnan().any(-1).tolist() == [[False, True, False]]


@pytest.mark.parametrize("name", NAMES)
def test_many_images_stay_apart(name):
    """The last of 80 against the definition; all of them, and every gradient, against the reference."""
    shapes = ((3, 2), (2, 1))
    *tensors, _ = inputs(2, 80, 17, 1, 4, 2, shapes, torch.float64)
    out, gradients = with_gradients(name, tensors, shapes)
    torch.testing.assert_close(out[79:], oracle(*(t[79:] for t in tensors), shapes), atol=1e-9, rtol=0)
    expected, expected_gradients = with_gradients("grid_sample", tensors, shapes)
    torch.testing.assert_close([out, *gradients], [expected, *expected_gradients], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_non_contiguous_inputs(name):
    *tensors, shapes = inputs(2, 2, 5, 3, 4, 2, ((3, 2), (2, 1)), torch.float64)
    strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in tensors]
    assert not any(t.is_contiguous() for t in strided)
    torch.testing.assert_close(get_sampler(name)(*strided, shapes), oracle(*tensors, shapes), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    *tensors, shapes = inputs(3, 1, 2, 1, 2, 2, ((3, 2), (1, 2)), torch.float64)
    tensors = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *t: get_sampler(name)(*t, shapes), tensors)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid_sample"])
@pytest.mark.parametrize("spread", [2.5, 40.0])
@pytest.mark.parametrize(("shapes", "n_points"), SHAPES_AND_POINTS)
def test_gradients_equal_the_reference(name, shapes, n_points, spread):
    """Near the maps, and mostly far outside."""
    *tensors, _ = inputs(6, 2, 4, 2, 6, n_points, shapes, torch.float64, spread=spread)
    _, found = with_gradients(name, tensors, shapes)
    torch.testing.assert_close(found, with_gradients("grid_sample", tensors, shapes)[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("grid_sample", "tent", "float_gather")])
def test_gradients_on_pixel_centres_and_borders(name):
    """Where they jump, they are the reference's; `tent` and `float_gather`, for inference, have others there."""
    steps = torch.arange(-2.0, 5.5, 0.5, dtype=torch.float64)
    places = torch.cartesian_prod(steps, steps) + 0.5
    *tensors, shapes = inputs(8, 1, len(places), 1, 4, 1, ((4, 4),), torch.float64)
    tensors[1], tensors[2] = torch.zeros_like(tensors[1]), places[None, :, None, None]
    _, found = with_gradients(name, tensors, shapes)
    torch.testing.assert_close(found, with_gradients("grid_sample", tensors, shapes)[1], atol=1e-9, rtol=0)


def with_gradients(name, tensors, shapes):
    """What a sampler gives, and its gradients for one of the output that is not contiguous, as autograd may have it."""
    tensors = [t.detach().clone().requires_grad_() for t in tensors]
    out = get_sampler(name)(*tensors, shapes)
    upstream = torch.randn(out.transpose(0, 1).shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return out.detach(), list(torch.autograd.grad(out, tensors, upstream.transpose(0, 1)))


ANY_SHAPE = {
    "seed": st.integers(0, 10_000),
    "shapes": st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=5),
    "n_points": st.integers(1, 8),
    "spread": st.floats(0, 20),
}


@settings(max_examples=25, deadline=None)
@given(**ANY_SHAPE)
def test_samplers_agree_on_any_shape(seed, shapes, n_points, spread):
    given_inputs = inputs(seed, 2, 3, 2, 4, n_points, tuple(shapes), torch.float64, spread)
    reference = get_sampler("grid_sample")(*given_inputs)
    for name in EXPORTABLE:
        torch.testing.assert_close(get_sampler(name)(*given_inputs), reference, atol=1e-9, rtol=0)


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is for Linux on x86-64")
@settings(max_examples=8, deadline=None)
@given(**ANY_SHAPE)
def test_fused_agrees_on_any_shape(seed, shapes, n_points, spread):
    given_inputs = inputs(seed, 1, 3, 1, 5, n_points, tuple(shapes), torch.float64, spread)
    expected = get_sampler("grid_sample")(*given_inputs)
    torch.testing.assert_close(get_sampler("fused")(*given_inputs), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_values_keep_fp32_coordinates(name, dtype):
    value, reference, offsets, logits, shapes = inputs(4, 1, 5, 2, 4, 2, ((48, 64),), torch.float32)
    out = get_sampler(name)(value.to(dtype), reference, offsets, logits, shapes)
    exact = get_sampler(name)(value.to(dtype).float(), reference, offsets, logits, shapes)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_full_values_stay_exact_under_autocast(name):
    *tensors, shapes = inputs(9, 2, 5, 2, 8, 4, ((9, 7), (4, 3)), torch.float32)
    expected = get_sampler(name)(*tensors, shapes)
    with torch.autocast("cpu", torch.bfloat16):
        found = get_sampler(name)(*tensors, shapes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_names():
    assert resolve_sampler("auto")[0] == "grid_sample"
    assert resolve_sampler(oracle) == ("oracle", oracle)
    with pytest.raises(
        ValueError, match="unknown sampler 'bilinear'; legal are auto, grid_sample, gather, float_gather"
    ):
        get_sampler("bilinear")
    assert get_sampler("auto") is get_sampler("grid_sample")
    assert choose_sampler("auto", "cpu") == "grid_sample" and choose_sampler("tent", "cuda") == "tent"
