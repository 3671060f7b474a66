"""The fused sampler's real kernels, where there is a GPU; and what looks at them, on a CPU with other samplers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gpu_steps
import pytest
import torch

from tfpose_edge import PRESETS
from tfpose_edge.attention import get_sampler

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_steps_on_a_gpu():
    """In a process of its own, for here kernels are interpreted."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "gpu_steps.py")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.split() == ["done"], ended.stderr


class TwiceTheGradient(torch.autograd.Function):
    """Its input, whose gradient is wrong."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def wrong_backward(number):
    """`gather`, but one of its inputs, by its place, gets twice the gradient."""

    def sample(*inputs):
        tensors = list(inputs)
        tensors[number] = TwiceTheGradient.apply(tensors[number])
        return get_sampler("gather")(*tensors)

    return sample


@pytest.fixture(scope="module")
def exact_step():
    """Crops, and the gradients of the reference sampler."""
    crops = torch.rand(2, 3, 128, 96, generator=torch.Generator().manual_seed(0)) * 255
    return crops, gpu_steps.step(gpu_steps.network(PRESETS["tiny"], "grid_sample", "cpu"), crops)


def test_another_sampler_takes_the_same_step(exact_step):
    crops, exact = exact_step
    found = gpu_steps.step(gpu_steps.network(PRESETS["tiny"], "gather", "cpu"), crops)
    assert gpu_steps.distance(found, exact) < gpu_steps.LIKE_THE_REFERENCE


@pytest.mark.parametrize("number", range(4), ids=["value", "reference points", "offsets", "logits"])
def test_that_step_finds_a_wrong_gradient(exact_step, number):
    crops, exact = exact_step
    found = gpu_steps.step(gpu_steps.network(PRESETS["tiny"], wrong_backward(number), "cpu"), crops)
    assert gpu_steps.distance(found, exact) > 5 * gpu_steps.LIKE_THE_REFERENCE
