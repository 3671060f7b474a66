"""What is rewritten for XNNPACK: each pass and form is exact, and leaves none of what it is there to remove."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from converting import blob_crops, lively_model
from torch import nn

from converters import xnnpack_passes
from converters.graph import ExportGraph
from converters.rewrites import rewrites_for
from converters.xnnpack_forms import LinearLayerNorm, PooledGroupNorm, delegable_norms
from converters.xnnpack_passes import PASSES, rewrite
from tfpose_edge import PRESETS

aten = torch.ops.aten
X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


class Computes(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


CASES = {
    "float_scalars": (lambda x: 1 - (x + 2) * 3, ()),
    "drop_checks": (lambda x: x.to(torch.int32).to(torch.float32), (aten._assert_tensor_metadata.default,)),
    "drop_copies": (lambda x: x.expand(2, -1, -1).detach().to(torch.float32) * 2.0, xnnpack_passes.WITHOUT_EFFECT),
    "unstack": (lambda x: torch.stack((x * 2.0, x.relu()))[-1], (aten.stack.default, aten.select.int)),
    "select_by_slices": (lambda x: x[:, -1] + x[..., 1, None].mean(), (aten.select.int,)),
    "unbind_by_slices": (lambda x: torch.sub(*x[..., :2].unbind(-1)), (aten.unbind.int,)),
    "split_by_slices": (lambda x: torch.cat(x.split([1, 3], -1)[::-1], -1), (aten.split_with_sizes.default,)),
    "view_unit_axes": (lambda x: (x[:, None] * 2.0).squeeze(1).unsqueeze(-1), xnnpack_passes.UNIT_AXES),
    "sum_by_linear": (lambda x: x.sum(-1) + x.sum(2, keepdim=True)[..., 0], (aten.sum.dim_IntList,)),
    "matmul_by_bmm": (lambda x: x[:, None] @ x[:, None].transpose(2, 3), (aten.matmul.default,)),
    "expand_by_product": (lambda x: x[:, :1].expand(-1, 5, -1) * 2.0, (aten.expand.default,)),
}


def test_every_pass_has_a_case():
    assert CASES.keys() == PASSES.keys()


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_is_exact_and_removes_what_it_is_for(name):
    function, gone = CASES[name]
    program = torch.export.export(Computes(function), (X,))
    before = {node.target for node in program.graph.nodes}
    assert not gone or before & set(gone), "the case has nothing to remove"
    program = rewrite(program, [name])
    assert not {node.target for node in program.graph.nodes} & set(gone)
    torch.testing.assert_close(program.module()(X), function(X), atol=1e-6, rtol=0)


def test_no_whole_number_is_left_in_float_arithmetic():
    program = rewrite(torch.export.export(Computes(CASES["float_scalars"][0]), (X,)), ["float_scalars"])
    assert not [arg for node in program.graph.nodes for arg in node.args if type(arg) is int]


def test_whole_numbers_stay_in_whole_arithmetic():
    whole = torch.arange(6).reshape(2, 3)
    program = rewrite(torch.export.export(Computes(lambda x: (x * 2 + 1)[:, 0].sum(-1)), (whole,)))
    assert program.module()(whole).equal((whole * 2 + 1)[:, 0].sum(-1))


def test_sums_over_other_axes_and_broadcast_products_stay():
    program = torch.export.export(Computes(lambda x: x.sum(1) @ x[0].t()), (X,))
    kept = {node.target for node in rewrite(program).graph.nodes}
    assert aten.sum.dim_IntList in kept and aten.matmul.default in kept


def test_what_depends_on_constants_is_stored():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.linear(torch.ones(4)).relu() * torch.tensor([2.0, 1.0, 0.0, 3.0])

    module = Constant().requires_grad_(False)
    program = rewrite(torch.export.export(module, (X,)))
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [aten.add.Tensor]
    torch.testing.assert_close(program.module()(X), module(X))


@pytest.mark.parametrize("shape", [(2, 5, 64), (3, 64)])
def test_layer_norm_is_exact(shape):
    norm = nn.LayerNorm(64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(shape) * 3 + 1
    torch.testing.assert_close(LinearLayerNorm(norm)(x), norm(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_group_norm_is_exact(groups):
    norm = nn.GroupNorm(groups, 32)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 32, 6, 5) * 3 + 1
    torch.testing.assert_close(PooledGroupNorm(norm)(x), norm(x), atol=1e-5, rtol=1e-5)


def test_norms_without_parameters_stay_as_they_are():
    plain = nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.GroupNorm(2, 4, affine=False))
    before = list(plain)
    delegable_norms(plain)
    assert list(plain) == before


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_the_whole_network_is_exact(batch):
    config = dataclasses.replace(PRESETS["tiny"], num_decoder_layers=2)
    model, crops = lively_model(config), torch.from_numpy(blob_crops(config, batch)).float()
    graph = ExportGraph(model, "float_gather", rewrites_for("executorch"))
    delegable_norms(graph)
    keypoints, scores = rewrite(torch.export.export(graph, (crops,))).module()(crops)
    expected = model(crops)
    assert (keypoints - expected.keypoints).abs().max() < 2e-5
    assert (scores - expected.scores).abs().max() < 2e-5
