"""The fused sampler's real kernels, where there is a GPU: in a process of its own, for here they are interpreted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

STEPS = """
import torch
from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import choose_sampler

def step(model, crops, amp):
    for parameter in model.parameters():
        parameter.grad = None
    with torch.autocast("cuda", torch.bfloat16, enabled=amp):
        output = model(crops)
        loss = output.per_layer.float().square().sum() + model.heatmaps(output.memory).float().square().mean()
    loss.backward()
    return torch.cat([parameter.grad.flatten().float() for parameter in model.parameters()])

def distance(one, other):
    return float((one - other).norm() / other.norm())

assert choose_sampler("auto", "cuda") == "fused"
torch.manual_seed(0)
config = PRESETS["r18-ne0"]
reference = TFPose(config, "grid_sample").cuda().eval()  # BatchNorm as it is, so that both see the same
model = TFPose(config, "fused").cuda().eval()
model.load_state_dict(reference.state_dict())
crops = torch.rand(4, 3, 256, 192, device="cuda") * 255
exact = step(reference, crops, amp=False)
assert distance(step(model, crops, amp=False), exact) < 1e-3
assert distance(step(model, crops, amp=True), exact) < 2 * distance(step(reference, crops, amp=True), exact)
torch.cuda.synchronize()
torch.cuda.set_sync_debug_mode("error")  # from now on: the shapes are known
eager = step(model, crops, amp=False)
torch.cuda.set_sync_debug_mode("default")
stream = torch.cuda.Stream()
stream.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(stream):
    step(model, crops, amp=False)
torch.cuda.current_stream().wait_stream(stream)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    captured = step(model, crops, amp=False)
graph.replay()
torch.cuda.synchronize()
assert distance(captured, eager) < 1e-3
print("done")
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_steps_on_a_gpu():
    """Gradients with and without autocast, a step in which the host never waits, and a step as a CUDA graph."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    ended = subprocess.run([sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.split() == ["done"], ended.stderr
