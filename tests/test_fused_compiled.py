"""What the fused sampler's kernels become on GPUs that need not be here, and the CUDA one's numbers, on the CPU."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import compiled_kernels
import emulated_cuda
import pytest
import torch
from test_samplers import HAS_TRITON, inputs

from tfpose_edge.attention import fused_choice, fused_scatter, get_sampler

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="Triton and NVRTC are for Linux on x86-64")
SHAPES = ((6, 5), (4, 3), (3, 3), (1, 2))
C2_TO_C5 = ((64, 48), (32, 24), (16, 12), (8, 6))  # of 256x192
OF_384X288 = ((96, 72), (48, 36), (24, 18), (12, 9))
H100, A100, SMALL = 232_448, 166_912, 101_376  # bytes of shared memory that a block may ask for


@pytest.fixture(scope="module")
def kernels():
    script = Path(__file__).with_name("compiled_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, str(script), "80", "90"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def count(instructions, *prefixes):
    return sum(name.startswith(prefixes) for name in instructions)


def test_triton_kernels_compile_without_spills(kernels):
    assert len(kernels) == 24
    for kernel in kernels:
        assert len(kernel["instructions"]) > 100
        assert not count(kernel["instructions"], "LDL", "STL"), kernel  # local memory


def test_values_are_loaded_16_bytes_at_a_time(kernels):
    """Of 4 levels, 4 corners and 2 halves; of each of the 4 points too, where the compiler unrolls them."""
    for kernel in kernels:
        is_unrolled = kernel["kernel"] == "forward" and kernel["case"] != "one head"
        if kernel["kernel"] != "scatter":  # which reads no values
            least = 4 * 4 * 2 * (4 if is_unrolled else 1)
            assert count(kernel["instructions"], "LDG.E.128") >= least, (kernel["kernel"], kernel["case"])


def test_reductions_are_vectors_on_hopper(kernels):
    scatters = {(k["arch"], k["case"]): k for k in kernels if k["kernel"] == "scatter"}
    for dtype in ("fp32", "bf16"):
        hopper, ampere = scatters[90, dtype], scatters[80, dtype]
        assert hopper["vector_reductions"] == count(hopper["instructions"], "RED") >= 4 * 4 * 2
        assert count(hopper["instructions"], "REDG.E.ADD.F32x4") == hopper["vector_reductions"]
        assert ampere["vector_reductions"] == 0 < count(ampere["instructions"], "RED")  # Ampere has none of 16 bytes


@pytest.mark.parametrize(
    ("shapes", "limit", "first_level", "channels"),
    [
        (C2_TO_C5, H100, 1, 32),
        (C2_TO_C5, A100, 1, 32),
        (C2_TO_C5, SMALL, 1, 16),
        (C2_TO_C5[1:], H100, 0, 32),
        (OF_384X288, H100, 1, 16),
        (OF_384X288[1:], H100, 0, 16),
    ],
)
def test_what_fits_in_shared_memory(shapes, limit, first_level, channels):
    plan = fused_scatter.fit(shapes, 8, 32, 4, limit)
    assert (plan.first_level, plan.channels) == (first_level, channels)
    assert plan.shared_bytes == plan.pixels * channels * 4 + 32 * (len(shapes) - first_level) * 4 * 4 * 8 <= limit


def test_nothing_fits():
    assert fused_scatter.fit(((256, 256),), 8, 32, 4, H100) is None
    assert fused_scatter.fit(C2_TO_C5, 8, 12, 4, H100) is None  # slices do not divide the head


def test_launches_compile_for_odd_sizes():
    """What the launcher itself hands to Triton's compiler: sizes and types beside the network's."""
    script = Path(__file__).with_name("launched_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["forward", "backward", "scatter"] * 3


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(("grad_bf16", "logits_bf16"), [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize(
    ("shapes", "first_level", "channels"),
    [(C2_TO_C5, 1, 32), (C2_TO_C5[1:], 0, 32), (OF_384X288, 1, 16), (OF_384X288[1:], 0, 16)],
)
def test_cuda_source_compiles(arch, grad_bf16, logits_bf16, shapes, first_level, channels):
    plan = fused_scatter.Plan(shapes, 8, 32, 4, first_level, channels, grad_bf16, logits_bf16)
    error, log, code = nvrtc([*plan.options(), f"--gpu-architecture=sm_{arch}"])
    assert error == 0, log
    instructions = compiled_kernels.instructions(code)
    assert "ATOMS.CAS.64" in instructions
    assert not [name for name in instructions if name.startswith(("LDL", "STL"))]  # nothing spills


def nvrtc(options: list[str]) -> tuple[int, str, bytes]:
    """Compile the CUDA source: error code, log, machine code."""
    import nvidia.cu13

    path = next(Path(next(iter(nvidia.cu13.__path__))).glob("lib/libnvrtc.so.*"))
    library, program, size = ctypes.CDLL(str(path)), ctypes.c_void_p(), ctypes.c_size_t()
    source = fused_scatter.SOURCE.read_bytes()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"scatter.cu", 0, None, None) == 0
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    error = library.nvrtcCompileProgram(program, len(options), arguments)
    texts = []
    for kind in ("ProgramLog", "CUBIN"):
        getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{kind}")(program, text)
        texts.append(text.raw)
    return error, texts[0].decode(), texts[1]


@pytest.mark.parametrize(
    ("first_level", "channels", "bf16", "splits"),
    [(0, 32, False, 1), (1, 32, False, 3), (2, 16, False, 2), (1, 16, True, 2)],
)
def test_cuda_kernel_equals_the_reference(first_level, channels, bf16, splits, tmp_path):
    """The source itself, through a C++ compiler: with threads, barriers, and memory that starts as NaN."""
    value, *points, _ = inputs(0, 2, 13, 2, 32, 3, SHAPES, torch.float32, spread=2.0)
    grad = torch.randn(2, 13, 64, generator=torch.Generator().manual_seed(1))
    if bf16:
        grad, points[2] = grad.bfloat16(), points[2].bfloat16()
    value.requires_grad_()
    get_sampler("grid_sample")(value, *points[:2], points[2].float(), SHAPES).backward(grad.float())
    plan = fused_scatter.Plan(SHAPES, 2, 32, 3, first_level, channels, bf16, bf16, warps=4)
    found = torch.zeros_like(value)
    args = [grad, *points, points[2].float().logsumexp(-1), found.detach(), 13]
    grid = (splits, plan.n_heads * (32 // channels), 2)
    emulated_cuda.Kernel(plan, tmp_path)(grid, (128, 1, 1), args, plan.shared_bytes)
    start = sum(height * width for height, width in SHAPES[:first_level])
    torch.testing.assert_close(found[:, start:], value.grad[:, start:], atol=2e-6, rtol=0)
    assert not found[:, :start].any()


@pytest.mark.parametrize(("faster", "runs"), [("shared", 5), ("triton", 4)])
def test_both_ways_make_one_gradient(faster, runs, monkeypatch, tmp_path):
    """Level 0 by Triton's kernel, the others by CUDA's, or all by Triton's: whichever was measured to be faster."""
    ways = []

    def milliseconds(way):
        way()
        ways.append(way)
        return float((len(ways) % 2 == 0) == (faster == "triton"))  # the ways take turns, Triton's first

    plan = fused_scatter.Plan(SHAPES, 2, 32, 3, 1, 16, warps=4)
    kernel, launches = emulated_cuda.Kernel(plan, tmp_path), []

    def counted(**arguments):
        launches.append(arguments)
        kernel(**arguments)

    monkeypatch.setattr(fused_scatter, "plan", lambda *_: plan)
    monkeypatch.setattr(fused_scatter, "compiled", lambda *_: counted)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=8))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(fused_choice, "milliseconds", milliseconds)
    monkeypatch.setattr(fused_choice, "_fastest", {})
    found, expected = [], []
    for sampler, gradients in (("fused", found), ("grid_sample", expected)):
        *tensors, _ = inputs(4, 2, 300, 2, 32, 3, SHAPES, torch.float32, spread=2.0)
        tensors = [t.requires_grad_() for t in tensors]
        get_sampler(sampler)(*tensors, SHAPES).square().sum().backward()
        gradients += [t.grad for t in tensors]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=0)
    assert len(launches) == runs and len(ways) == 2 * (fused_choice.ROUNDS + 1)


def test_the_faster_way_is_measured_once_for_a_case_and_never_in_a_graph(monkeypatch):
    """The first round, which compiles, does not count; nor does one slow round among the others."""
    times = {"triton": iter([9.0, 2.0, 8.0, 2.0]), "shared": iter([1.0, 3.0, 3.0, 1.0])}
    capturing = iter([True, False])
    monkeypatch.setattr(fused_choice, "_fastest", {})
    monkeypatch.setattr(fused_choice, "milliseconds", lambda way: next(times[way()]))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: next(capturing))
    ways = {name: lambda name=name: name for name in times}
    assert fused_choice.fastest("case", ways, "shared") == "shared"  # a guess, not remembered
    assert [fused_choice.fastest("case", ways, "shared") for _ in range(2)] == ["triton", "triton"]


def test_a_place_that_is_no_number_reaches_the_gradient(tmp_path):
    """In the CUDA source, too: and touches no memory but its own level's."""
    value, reference, offsets, logits, _ = inputs(0, 1, 4, 1, 32, 3, SHAPES, torch.float32)
    offsets[0, 2, 0, 4] = torch.nan
    plan = fused_scatter.Plan(SHAPES, 1, 32, 3, 1, 32, warps=1)
    found = torch.zeros_like(value)
    args = [torch.ones(1, 4, 32), reference, offsets, logits, logits.logsumexp(-1), found, 4]
    emulated_cuda.Kernel(plan, tmp_path)((1, 1, 1), (32, 1, 1), args, plan.shared_bytes)
    nowhere = found.isnan().flatten(2).any(-1)[0]
    assert nowhere[30:42].any() and not nowhere[:30].any() and not nowhere[42:].any()


def test_no_images_need_no_launch():
    plan = fused_scatter.Plan(SHAPES, 2, 32, 3, 1, 32)
    nothing = torch.zeros(0, 600, 2, 12, 2)
    fused_scatter.run(plan, *[nothing] * 6)


def on_a_gpu(monkeypatch, compile_kernel):
    """`fused_scatter.plan` for an H100 on which torch's compiler is `compile_kernel`."""
    fused_scatter._kernels.clear()
    properties = SimpleNamespace(shared_memory_per_block_optin=H100, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "_compile_kernel", compile_kernel)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    value = SimpleNamespace(
        is_cuda=True, dtype=torch.float32, device=torch.device("cuda", 0), shape=torch.Size((32, 4080, 8, 32))
    )
    offsets, logits = torch.empty(32, 4080, 8, 16, 2, device="meta"), torch.empty(32, 4080, 8, 16, device="meta")
    return lambda route: fused_scatter.plan(value, offsets, logits, C2_TO_C5, route)


def test_nothing_is_compiled_while_a_graph_is_captured(monkeypatch):
    kernel = SimpleNamespace(set_shared_memory_config=lambda _: None)
    plan = on_a_gpu(monkeypatch, lambda *_, **__: kernel)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert plan("auto") is None
    with pytest.raises(ValueError, match="while a CUDA graph is captured; step once before"):
        plan("shared")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert (found := plan("auto")) is not None
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert plan("auto") == plan("shared") == found  # from now on it is there


def test_memory_that_is_short_for_a_moment_is_no_missing_compiler(monkeypatch):
    failures = [RuntimeError("CUDA error: out of memory")]

    def compile_kernel(*_, **__):
        if failures:
            raise failures.pop()
        return SimpleNamespace(set_shared_memory_config=lambda _: None)

    plan = on_a_gpu(monkeypatch, compile_kernel)
    with pytest.raises(RuntimeError, match="out of memory"):
        plan("auto")
    assert plan("auto") is not None


def test_without_nvrtc_triton_sums_all_and_says_so(monkeypatch):
    def compile_kernel(*_, **__):
        raise OSError("Could not find any NVRTC library")

    plan = on_a_gpu(monkeypatch, compile_kernel)
    with pytest.warns(UserWarning, match="Could not find any NVRTC library.*not summed in shared memory"):
        assert plan("auto") is None
    with pytest.raises(ValueError, match="route shared: NVRTC does not compile here"):
        plan("shared")
    assert plan("triton") is None


def test_the_cuda_source_needs_no_toolkit(monkeypatch):
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    folders = []

    def compile_kernel(*_, **__):
        folders.extend(cpp_extension.include_paths("cuda"))  # as torch's own does, first of all
        return SimpleNamespace(set_shared_memory_config=lambda _: None)

    assert on_a_gpu(monkeypatch, compile_kernel)("shared").first_level == 1
    assert folders and cpp_extension.CUDA_HOME is None
