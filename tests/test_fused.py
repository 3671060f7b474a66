"""The fused sampler as an operator of torch's, its kernels under Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
import torch.distributed
from test_samplers import HAS_TRITON, inputs
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import EXPORTABLE, DeformableAttention, choose_sampler, get_sampler

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="Triton is for Linux on x86-64")
SHAPES = ((5, 4), (3, 2))


def fused(*given):
    return get_sampler("fused")(*given)


def attention(sampler):
    torch.manual_seed(0)
    layer = DeformableAttention(32, 2, 2, 2, get_sampler(sampler))
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(layer.attention_weights.weight, std=0.1)
    return layer


def layer_inputs():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 5, 32, generator=generator),
        torch.rand(2, 5, 2, generator=generator),
        torch.randn(2, 26, 32, generator=generator),
    )


def gradients(layer, run):
    """Gradients of the layer's parameters and of query and memory."""
    query, reference, memory = layer_inputs()
    query.requires_grad_(), memory.requires_grad_()
    run(layer, query, reference, memory, SHAPES).square().sum().backward()
    return [query.grad, memory.grad, *(p.grad for p in layer.parameters())]


def plain(layer, *given):
    return layer(*given)


def assert_same(found, expected, tolerance=1e-4):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance * float(other.abs().max()), rtol=0)


def test_opcheck():
    *tensors, _ = inputs(0, 2, 3, 2, 4, 2, SHAPES, torch.float32)
    tensors = [t.requires_grad_() for t in tensors]
    sizes = [size for shape in SHAPES for size in shape]
    get_sampler("fused")  # which registers the operators
    torch.library.opcheck(torch.ops.tfpose_edge.deformable_sampling, (*tensors, sizes, "auto"))
    tensors = [t.detach() for t in tensors]
    out, log_sum = torch.ops.tfpose_edge.deformable_sampling(*tensors, sizes, "auto")
    backward = (torch.ones_like(out), out, *tensors, log_sum, sizes, "auto")
    torch.library.opcheck(torch.ops.tfpose_edge.deformable_sampling_backward, backward)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients(dtype):
    """Values and logits in half precision, coordinates and sums in fp32: the error is that of rounding the result."""
    *tensors, _ = inputs(3, 2, 9, 2, 8, 2, SHAPES, torch.float32)
    tensors[0], tensors[3] = tensors[0].to(dtype), tensors[3].to(dtype)
    exact = [t.float().requires_grad_() for t in tensors]
    rounded = [t.detach().clone().requires_grad_() for t in tensors]
    get_sampler("grid_sample")(*exact, SHAPES).square().sum().backward()
    out = fused(*rounded, SHAPES)
    out.square().sum().backward()
    assert out.dtype == dtype
    assert [t.grad.dtype for t in rounded] == [dtype, torch.float32, torch.float32, dtype]
    assert_same([t.grad.float() for t in rounded], [t.grad for t in exact], 2e-2)


def test_layer_gradients_equal_the_reference():
    assert_same(gradients(attention("fused"), plain), gradients(attention("grid_sample"), plain))


def test_activation_checkpointing():
    again = lambda layer, *given: checkpoint(layer, *given, use_reentrant=False)  # noqa: E731
    assert_same(gradients(attention("fused"), again), gradients(attention("grid_sample"), plain))


def test_compiles_in_one_graph():
    compiled = lambda layer, *given: torch.compile(layer, fullgraph=True)(*given)  # noqa: E731
    assert_same(gradients(attention("fused"), compiled), gradients(attention("grid_sample"), plain))


def test_distributed_data_parallel(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        layer = attention("fused")
        found = gradients(layer, lambda layer, *given: DistributedDataParallel(layer)(*given))
    finally:
        torch.distributed.destroy_process_group()
    assert_same(found, gradients(attention("grid_sample"), plain))


def test_autocast():
    query, reference, memory = layer_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = attention("fused")(query, reference, memory, SHAPES)
    exact = attention("grid_sample")(query, reference, memory, SHAPES)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, atol=3e-2, rtol=0)
    cast = torch.autocast("cpu", torch.bfloat16)(plain)
    assert_same(gradients(attention("fused"), cast), gradients(attention("grid_sample"), plain), 5e-2)


def test_the_whole_network():
    model = TFPose(PRESETS["tiny"], "fused").eval()
    crops = torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(2)) * 255
    other = TFPose(PRESETS["tiny"]).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(crops).keypoints, other(crops).keypoints, atol=1e-6, rtol=0)


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(wanted):
    """Of a sum, whose gradient is one number with strides of 0."""
    found = []
    for sampler in ("fused", "grid_sample"):
        *tensors, _ = inputs(5, 1, 3, 1, 4, 2, SHAPES, torch.float64)
        tensors[wanted].requires_grad_()
        found.append(torch.autograd.grad(get_sampler(sampler)(*tensors, SHAPES).sum(), tensors[wanted])[0])
    torch.testing.assert_close(*found, atol=1e-9, rtol=0)


def test_second_gradients_are_refused():
    *tensors, _ = inputs(5, 1, 3, 1, 4, 2, SHAPES, torch.float64)
    value = tensors[0].requires_grad_()
    (gradient,) = torch.autograd.grad(fused(*tensors, SHAPES).square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        gradient.sum().backward()


def test_compiles_for_any_batch():
    compiled = torch.compile(get_sampler("fused"), fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 3):
        *tensors, _ = inputs(5, batch, 3, 1, 4, 2, SHAPES, torch.float32)
        torch.testing.assert_close(compiled(*tensors, SHAPES), fused(*tensors, SHAPES), atol=0, rtol=0)


def test_deterministic_algorithms_are_refused():
    *tensors, _ = inputs(0, 1, 2, 1, 2, 2, SHAPES, torch.float32)
    value = tensors[0].requires_grad_()
    try:
        torch.use_deterministic_algorithms(True)
        with pytest.raises(RuntimeError, match="fused sampler has no deterministic implementation"):
            fused(value, *tensors[1:], SHAPES).sum().backward()
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="no deterministic implementation"):
            fused(value, *tensors[1:], SHAPES).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_images_beyond_two_to_the_31_elements():
    """Image 2 starts at element 2 ** 31; all but its corner is memory that is reserved and never touched."""
    shapes = ((2**15, 2**15),)
    value = torch.empty(3, 2**30, 1, 1, dtype=torch.bfloat16)
    value[2, : 2**15] = 1.0
    value[2, 2**15 : 2**15 + 2**15] = 1.0
    offsets = torch.zeros(3, 1, 1, 1, 2)
    reference = torch.full((3, 1, 2), 1 / 2**15)
    value[:2, :2] = value[:2, 2**15 : 2**15 + 2] = 0.0
    out = fused(value, reference, offsets, torch.zeros(3, 1, 1, 1), shapes)
    assert out.flatten().tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(1, 25, 2, 4)}, r"value has shape \(1, 25, 2, 4\); it must be \(1, 26, 2, 4\)"),
        ({1: torch.zeros(1, 4, 2)}, r"reference_points has shape \(1, 4, 2\); it must be \(1, 3, 2\)"),
        ({2: torch.zeros(1, 3, 2, 4, 3)}, r"sampling_offsets has shape"),
        ({3: torch.zeros(1, 3, 2, 4, dtype=torch.int64)}, "attention_logits is torch.int64 on cpu; it must be floats"),
    ],
)
def test_wrong_inputs(change, message):
    given = [torch.zeros(1, 26, 2, 4), torch.zeros(1, 3, 2), torch.zeros(1, 3, 2, 4, 2), torch.zeros(1, 3, 2, 4)]
    with pytest.raises(ValueError, match=message):
        fused(*[change.get(i, tensor) for i, tensor in enumerate(given)], SHAPES)


def test_more_than_the_kernels_can_count_is_refused():
    shapes = ((2**14, 2**14),)
    given = [torch.zeros(1, 3, 2), torch.zeros(1, 3, 8, 4, 2), torch.zeros(1, 3, 8, 4)]
    with pytest.raises(ValueError, match="2147483648 numbers in the largest level; legal are 65535 images"):
        fused(torch.zeros(1, 1, 8, 1).expand(1, 2**28, 8, 1), *given, shapes)
    many = 2**16
    given = [torch.zeros(many, 1, 2), torch.zeros(many, 1, 1, 1, 2), torch.zeros(many, 1, 1, 1)]
    with pytest.raises(ValueError, match="fused: 65536 images"):
        fused(torch.zeros(many, 1, 1, 1), *given, ((1, 1),))


def test_samples_that_do_not_divide():
    given = [torch.zeros(1, 26, 2, 4), torch.zeros(1, 3, 2), torch.zeros(1, 3, 2, 5, 2), torch.zeros(1, 3, 2, 5)]
    with pytest.raises(ValueError, match="5 samples do not divide among 2 levels"):
        fused(*given, SHAPES)


def test_routes():
    from tfpose_edge.attention.fused import with_backward

    *tensors, _ = inputs(0, 1, 3, 1, 4, 2, SHAPES, torch.float32)
    torch.testing.assert_close(with_backward("triton")(*tensors, SHAPES), fused(*tensors, SHAPES), atol=0, rtol=0)
    with pytest.raises(ValueError, match="unknown route 'best'; legal are auto, triton, shared"):
        with_backward("best")
    tensors[0].requires_grad_()
    with pytest.raises(ValueError, match="route shared: it needs a CUDA device, not cpu"):
        with_backward("shared")(*tensors, SHAPES).sum().backward()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it can run")
def test_without_a_gpu_it_says_why():
    """In a process of its own: without the interpreter."""
    code = """
from tfpose_edge import PRESETS, TFPose
from tfpose_edge.attention import choose_sampler
print(choose_sampler("auto", "cpu"), choose_sampler("auto", "cuda"))
TFPose(PRESETS["tiny"], "fused")
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ended.stdout.split() == ["grid_sample", "grid_sample"]
    reason = r"it needs (a CUDA build of torch|an NVIDIA GPU, and torch finds none here)"
    expected = f"ValueError: fused: {reason}; legal here are auto, {', '.join(EXPORTABLE)} or a callable"
    assert re.fullmatch(expected, ended.stderr.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "grid_sample"), ((8, 0), "fused"), ((9, 0), "fused"), (None, "grid_sample")]
)
def test_auto_takes_it_where_it_runs(capability, chosen, monkeypatch):
    """Without the interpreter, on a GPU of this capability."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    assert choose_sampler("auto", "cuda") == chosen and choose_sampler("auto", "cpu") == "grid_sample"
    if capability == (7, 5):
        with pytest.raises(ValueError, match=r"fused: it needs compute capability 8.0 or later; a GPU has \(7, 5\)"):
            get_sampler("fused")
