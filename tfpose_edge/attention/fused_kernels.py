"""The Triton kernels of the fused sampler: one program does `BLOCK_Q` queries of one head of one image.

A thread holds 16 bytes of channels from each half of a head, so a corner is one vector load a half and, backward, one
vector reduction; two halves, because coordinates are computed once in every thread of a row, and half as many threads
do half of that work. Loads need no masks: queries and pixels that do not exist are clamped, and weigh nothing.
Forward keeps log(sum(exp(logits))), from which backward has every softmax weight at once.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def forward(
    value, reference_points, sampling_offsets, attention_logits, out, log_sum, queries,
    SHAPES: tl.constexpr, N_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, N_POINTS: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """out (B, Q, H, D) and log_sum (B, Q, H), from the sampler's inputs."""
    dtype = log_sum.dtype.element_ty
    samples: tl.constexpr = len(SHAPES) * N_POINTS
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query, exists = _queries(queries, BLOCK_Q)
    row = (image * queries + query) * N_HEADS + head  # in (B, Q, H)
    channel, low, high = _halves(HEAD_DIM, BLOCK_D)
    logits, offsets = attention_logits + row * samples, sampling_offsets + row * (2 * samples)
    log_total = _log_sum_exp(logits, samples, BLOCK_S, dtype)
    tl.store(log_sum + row, log_total, exists)
    reference = reference_points + 2 * (image * queries + query)
    reference_x, reference_y = tl.load(reference), tl.load(reference + 1)
    out_low = tl.zeros((BLOCK_Q, BLOCK_D // 2), dtype)
    out_high = tl.zeros((BLOCK_Q, BLOCK_D // 2), dtype)
    start = 0
    for level in tl.static_range(len(SHAPES)):
        height, width = SHAPES[level][0], SHAPES[level][1]
        plane = value + _plane(image, head, start, SHAPES, N_HEADS, HEAD_DIM) + channel
        for point in range(N_POINTS):
            sample = level * N_POINTS + point
            weight = tl.exp(tl.load(logits + sample).to(dtype) - log_total)
            x = reference_x * width + tl.load(offsets + 2 * sample) - 0.5
            y = reference_y * height + tl.load(offsets + 2 * sample + 1) - 0.5
            columns, shares_x, _ = _neighbours(x, width)
            lines, shares_y, _ = _neighbours(y, height)
            for corner in tl.static_range(4):
                pixel = lines[corner // 2] * width + columns[corner % 2]
                pixel = plane + (pixel * (N_HEADS * HEAD_DIM))[:, None]
                share = (weight * shares_x[corner % 2] * shares_y[corner // 2])[:, None]
                out_low += share * _widened(tl.load(pixel, low, other=0.0), dtype)
                out_high += share * _widened(tl.load(pixel + BLOCK_D // 2, high, other=0.0), dtype)
        start += height * width
    here = out + (row * HEAD_DIM)[:, None] + channel
    tl.store(here, out_low.to(out.dtype.element_ty), low & exists[:, None])
    tl.store(here + BLOCK_D // 2, out_high.to(out.dtype.element_ty), high & exists[:, None])


@triton.jit
def backward(
    grad, out, value, reference_points, sampling_offsets, attention_logits, log_sum, grad_offsets, grad_logits, queries,
    SHAPES: tl.constexpr, N_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, N_POINTS: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """grad_offsets (B, Q, H, L * P, 2) and grad_logits (B, Q, H, L * P) from grad (B, Q, H, D).

    With delta = sum over channels of grad * out, the softmax's backward is weight * (d weight - delta): one pass.
    """
    dtype = log_sum.dtype.element_ty
    samples: tl.constexpr = len(SHAPES) * N_POINTS
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query, exists = _queries(queries, BLOCK_Q)
    row = (image * queries + query) * N_HEADS + head
    channel, low, high = _halves(HEAD_DIM, BLOCK_D)
    here = (row * HEAD_DIM)[:, None] + channel
    grad_low = tl.load(grad + here, low, other=0.0).to(dtype)
    grad_high = tl.load(grad + here + BLOCK_D // 2, high, other=0.0).to(dtype)
    delta = _dot(grad_low, grad_high, out + here, low, high, BLOCK_D)
    logits, offsets = attention_logits + row * samples, sampling_offsets + row * (2 * samples)
    log_total = tl.load(log_sum + row)
    reference = reference_points + 2 * (image * queries + query)
    reference_x, reference_y = tl.load(reference), tl.load(reference + 1)
    start = 0
    for level in tl.static_range(len(SHAPES)):
        height, width = SHAPES[level][0], SHAPES[level][1]
        plane = value + _plane(image, head, start, SHAPES, N_HEADS, HEAD_DIM) + channel
        for point in range(N_POINTS):
            sample = level * N_POINTS + point
            weight = tl.exp(tl.load(logits + sample).to(dtype) - log_total)
            x = reference_x * width + tl.load(offsets + 2 * sample) - 0.5
            y = reference_y * height + tl.load(offsets + 2 * sample + 1) - 0.5
            columns, shares_x, slopes_x = _neighbours(x, width)
            lines, shares_y, slopes_y = _neighbours(y, height)
            grad_weight, grad_x, grad_y = tl.zeros_like(weight), tl.zeros_like(weight), tl.zeros_like(weight)
            for corner in tl.static_range(4):
                pixel = lines[corner // 2] * width + columns[corner % 2]
                pixel = plane + (pixel * (N_HEADS * HEAD_DIM))[:, None]
                along = _dot(grad_low, grad_high, pixel, low, high, BLOCK_D)
                grad_weight += shares_x[corner % 2] * shares_y[corner // 2] * along
                grad_x += slopes_x[corner % 2] * shares_y[corner // 2] * along
                grad_y += shares_x[corner % 2] * slopes_y[corner // 2] * along
            tl.store(grad_logits + row * samples + sample, weight * (grad_weight - delta), exists)
            tl.store(grad_offsets + 2 * (row * samples + sample), weight * grad_x, exists)
            tl.store(grad_offsets + 2 * (row * samples + sample) + 1, weight * grad_y, exists)
        start += height * width


@triton.jit
def scatter(
    grad, reference_points, sampling_offsets, attention_logits, log_sum, grad_value, queries,
    SHAPES: tl.constexpr, N_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, N_POINTS: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """grad_value (B, S, H, D) += what grad (B, Q, H, D) sends to the first LEVELS levels; vector reductions."""
    dtype = log_sum.dtype.element_ty
    samples: tl.constexpr = len(SHAPES) * N_POINTS
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query, exists = _queries(queries, BLOCK_Q)
    row = (image * queries + query) * N_HEADS + head
    channel, low, high = _halves(HEAD_DIM, BLOCK_D)
    here = grad + (row * HEAD_DIM)[:, None] + channel
    grad_low = tl.load(here, low, other=0.0).to(dtype)
    grad_high = tl.load(here + BLOCK_D // 2, high, other=0.0).to(dtype)
    logits, offsets = attention_logits + row * samples, sampling_offsets + row * (2 * samples)
    log_total = tl.load(log_sum + row)
    reference = reference_points + 2 * (image * queries + query)
    reference_x, reference_y = tl.load(reference), tl.load(reference + 1)
    start = 0
    for level in tl.static_range(LEVELS):
        height, width = SHAPES[level][0], SHAPES[level][1]
        plane = grad_value + _plane(image, head, start, SHAPES, N_HEADS, HEAD_DIM) + channel
        for point in range(N_POINTS):
            sample = level * N_POINTS + point
            weight = tl.exp(tl.load(logits + sample).to(dtype) - log_total)
            x = reference_x * width + tl.load(offsets + 2 * sample) - 0.5
            y = reference_y * height + tl.load(offsets + 2 * sample + 1) - 0.5
            columns, shares_x, _ = _neighbours(x, width)
            lines, shares_y, _ = _neighbours(y, height)
            for corner in tl.static_range(4):
                pixel = lines[corner // 2] * width + columns[corner % 2]
                pixel = plane + (pixel * (N_HEADS * HEAD_DIM))[:, None]
                share = tl.where(exists, weight * shares_x[corner % 2] * shares_y[corner // 2], 0.0)[:, None]
                tl.atomic_add(pixel, share * grad_low, low & (share != 0), sem="relaxed")
                tl.atomic_add(pixel + BLOCK_D // 2, share * grad_high, high & (share != 0), sem="relaxed")
        start += height * width


@triton.jit
def _queries(queries, BLOCK_Q: tl.constexpr):
    """This program's queries, and which of them exist; the others stand in for the last one, to be loaded safely."""
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    return tl.minimum(query, queries - 1), query < queries


@triton.jit
def _halves(HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Channels (1, BLOCK_D / 2) of a head's lower half, and which exist of the lower and of the upper half."""
    channel = tl.arange(0, BLOCK_D // 2)[None, :]
    return channel, channel < HEAD_DIM, channel + BLOCK_D // 2 < HEAD_DIM


@triton.jit
def _dot(low_factor, high_factor, rows, low, high, BLOCK_D: tl.constexpr):
    """Sum over channels of the factors times what lies at the pointers (BLOCK_Q, BLOCK_D / 2) and one half higher."""
    product = low_factor * _widened(tl.load(rows, low, other=0.0), low_factor.dtype)
    product += high_factor * _widened(tl.load(rows + BLOCK_D // 2, high, other=0.0), high_factor.dtype)
    return tl.sum(product, axis=1)


@triton.jit
def _log_sum_exp(logits, samples: tl.constexpr, BLOCK_S: tl.constexpr, dtype):
    """log(sum(exp(.))) of the `samples` numbers at each of the pointers (BLOCK_Q,)."""
    sample = tl.arange(0, BLOCK_S)[None, :]
    logit = tl.load(logits[:, None] + sample, sample < samples, other=float("-inf")).to(dtype)
    largest = tl.max(logit, axis=1)
    return largest + tl.log(tl.sum(tl.exp(logit - largest[:, None]), axis=1))


@triton.jit
def _plane(image, head, start, SHAPES: tl.constexpr, N_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Where in (B, S, H, D) channel 0 of this head of the level's first pixel lies; 64 bits wide."""
    tokens = 0
    for level in tl.static_range(len(SHAPES)):
        tokens += SHAPES[level][0] * SHAPES[level][1]
    return (image * tokens + start) * (N_HEADS * HEAD_DIM) + head * HEAD_DIM


@triton.jit
def _widened(values, dtype):
    """The values in the type of sums. bf16 is the upper half of fp32, which takes one instruction, and not two."""
    if values.dtype == tl.bfloat16:
        wide = (values.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        wide = values.to(dtype)
    return wide


@triton.jit
def _neighbours(position, size):
    """The two pixels around a position along one axis of `size` pixels, the share of each and the share's slope.

    Pixels outside are clamped; their share and slope are 0. A position that is no number has shares that are none.
    """
    below = tl.floor(position)
    fraction = position - below
    no_below, no_above = (below < 0) | (below >= size), (below < -1) | (below >= size - 1)
    share_below, share_above = tl.where(no_below, 0.0, 1 - fraction), tl.where(no_above, 0.0, fraction)
    slope_below, slope_above = tl.where(no_below, 0.0, -1.0), tl.where(no_above, 0.0, 1.0)
    pixel = tl.minimum(tl.maximum(below, -1.0), size - 1.0).to(tl.int32)  # any float fits
    below_above = (tl.maximum(pixel, 0), tl.minimum(pixel + 1, size - 1))
    return below_above, (share_below, share_above), (slope_below, slope_above)
