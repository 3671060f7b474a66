"""Training steps with the fused sampler on a GPU: gradients, autocast, a host that does not wait, a CUDA graph.

Run as a process of its own, without Triton's interpreter, on an NVIDIA GPU: python tests/gpu_steps.py
"""

from __future__ import annotations

from dataclasses import replace

import torch
from converting import lively_model
from torch import Tensor

from benchmarks.attention import correctness
from benchmarks.attention.implementations import implementations
from tfpose_edge import PRESETS, PoseConfig, TFPose
from tfpose_edge.attention import Sampler, choose_sampler

CONFIG = replace(PRESETS["r18-ne6"], dropout=0.0)  # an encoder, so that all of the operator's shapes are there
LIKE_THE_REFERENCE = 1e-3


def network(config: PoseConfig, sampler: str | Sampler, device: str) -> TFPose:
    """Random weights that every gradient reaches, the same for every sampler; BatchNorm as it is."""
    model = TFPose(config, sampler)
    model.load_state_dict(lively_model(config).state_dict())
    return model.to(device).eval()


def step(model: TFPose, crops: Tensor, amp: bool = False) -> Tensor:
    """All gradients of one step, as one vector."""
    for parameter in model.parameters():
        parameter.grad = None
    with torch.autocast(crops.device.type, torch.bfloat16, enabled=amp):
        output = model(crops)
        places, scores = output.per_layer.float(), output.scores.float()
        loss = places.square().sum() + scores.sum() + model.heatmaps(output.memory).float().square().mean()
    loss.backward()
    return torch.cat([parameter.grad.flatten().float() for parameter in model.parameters()])


def distance(one: Tensor, other: Tensor) -> float:
    """Of two vectors, over the length of the other."""
    return float((one - other).norm() / other.norm())


def main() -> None:
    """AssertionError names what is not as it must be."""
    assert choose_sampler("auto", "cuda") == "fused"
    for name, sampler in implementations(torch.device("cuda"))[0].items():
        for case in correctness.cases_for(torch.device("cuda"), quick=False) if name.startswith("fused") else ():
            found = correctness.check(case, name, sampler, 0, torch.device("cuda"))
            assert found.passed, found.line()
    reference, model = network(CONFIG, "grid_sample", "cuda"), network(CONFIG, "fused", "cuda")
    crops = torch.rand(4, 3, *CONFIG.input_size_wh[::-1], device="cuda") * 255
    exact = step(reference, crops)
    assert distance(step(model, crops), exact) < LIKE_THE_REFERENCE
    assert distance(step(model, crops, amp=True), exact) < 2 * distance(step(reference, crops, amp=True), exact)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # from now on: the shapes are known
    eager = step(model, crops)
    torch.cuda.set_sync_debug_mode("default")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(model, crops)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(model, crops)
    graph.replay()
    torch.cuda.synchronize()
    assert distance(captured, eager) < LIKE_THE_REFERENCE


if __name__ == "__main__":
    main()
    print("done")
