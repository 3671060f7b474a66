"""No sampler fetches a number from the host or brings one there: what waits for neither fits into a CUDA graph.

Of `fused` that holds for what surrounds its two operators, which do not run on the device of these tests.
"""

from __future__ import annotations

import pytest
import torch
from test_samplers import NAMES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention.constants import constant

ATEN = torch.ops.aten
CROSSINGS = ATEN.lift_fresh.default, ATEN.item.default, ATEN._local_scalar_dense.default


class Elsewhere(TorchDispatchMode):
    """Lists the operations that cross from or to the host, or touch a tensor which is not on the device "meta"."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors) or function in CROSSINGS:
            self.found.append(str(function))
        return out


@pytest.mark.parametrize("sample_then_project", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_stays_on_its_device(name, sample_then_project, monkeypatch):
    model = TFPose(PRESETS["tiny"], name, sample_then_project).to("meta")
    monkeypatch.delattr(torch, "tensor")  # a copy from the host, which leaves no trace on this device
    with Elsewhere() as elsewhere:
        output = model(torch.zeros(2, 3, 128, 96, device="meta"))
        (output.per_layer.sum() + output.scores.sum() + model.heatmaps(output.memory).sum()).backward()
    assert not elsewhere.found


def test_the_watch_sees_what_crosses():
    with Elsewhere() as elsewhere:
        torch.zeros(2).to("meta")
    assert "aten._to_copy.default" in elsewhere.found


@pytest.mark.parametrize("values", [[3, 3, 5], [[3, 3, 5], [5, 5, 5]], [[0.5], [0.25]]])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_filled_constants_are_those_written_out(values, dtype):
    class Filled:
        """A device of another name, so that the values are filled in, though the tensors are the CPU's."""

        type = "cuda"

    full = torch.full
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "full", lambda *given, device, **named: full(*given, **named))
        found = constant(values, dtype, Filled())
    torch.testing.assert_close(found, torch.tensor(values, dtype=dtype), atol=0, rtol=0)
