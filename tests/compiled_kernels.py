"""Compiles the fused sampler's Triton kernels for GPUs that need not be there; prints what came out as JSON.

Each for values and logits in fp32 and in bf16; on the newest also in fp16, for bf16 values with logits in fp32, for
crops of 384x288, and for one head of 256 channels, as `SampleThenProject` has it.

Run as a process of its own, without Triton's interpreter: python tests/compiled_kernels.py ARCH [ARCH ...]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tfpose_edge.attention import fused_kernels, fused_launch

SHAPES = ((64, 48), (32, 24), (16, 12), (8, 6))  # C2..C5 of 256x192
LARGE = ((96, 72), (48, 36), (24, 18), (12, 9))  # of 384x288
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CASES = {
    "fp32": ("fp32", "fp32", SHAPES, 8, 32),
    "bf16": ("bf16", "bf16", SHAPES, 8, 32),
}  # name -> types of values and logits, spatial shapes, heads, channels of a head
MORE_CASES = {
    "fp16": ("fp16", "fp16", SHAPES, 8, 32),
    "bf16, logits fp32": ("bf16", "fp32", SHAPES, 8, 32),
    "384x288": ("bf16", "bf16", LARGE, 8, 32),
    "one head": ("bf16", "bf16", SHAPES, 1, 256),
}
BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def compiled(kernel: str, case: str, arch: int):
    """The kernel as the launcher would have it compiled: batch 32, encoder."""
    function = getattr(fused_kernels, kernel)
    dtype, logits, shapes, n_heads, head_dim = (CASES | MORE_CASES)[case]
    tokens = sum(height * width for height, width in shapes)
    value = torch.empty(32, tokens, n_heads, head_dim, dtype=TYPES[dtype], device="meta")
    offsets = torch.empty(32, tokens, n_heads, 16, 2, device="meta")
    element_size = 4 if kernel == "scatter" else value.element_size()
    constants = fused_launch.constants(value, offsets, shapes, element_size)
    constants |= {"forward": {"BLOCK_S": 16}, "scatter": {"LEVELS": 4}}.get(kernel, {})
    types = dict.fromkeys(("value", "out", "grad"), dtype) | dict.fromkeys(("attention_logits", "grad_logits"), logits)
    signature = {name: "*" + types.get(name, "fp32") for name in function.arg_names}
    signature |= {"queries": "i32"} | dict.fromkeys(constants, "constexpr")
    pointers = [i for i, name in enumerate(function.arg_names) if signature[name][0] == "*"]
    source = ASTSource(
        function,
        signature,
        {(function.arg_names.index(name),): constant for name, constant in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i in pointers},
    )
    return triton.compile(source, target=GPUTarget("cuda", arch, 32))


def instructions(cubin: bytes) -> list[str]:
    """Names of the instructions in machine code, in order."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [BINARIES / "nvdisasm", "-c", file.name]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", code, re.M)


def found(kernel: str, case: str, arch: int) -> dict[str, object]:
    """What the test asks of one kernel."""
    result = compiled(kernel, case, arch)
    vector_reductions = len(re.findall(r"\b(?:red|atom)\.global\S*\.add\.v4\.f32", result.asm["ptx"]))
    named = {"kernel": kernel, "case": case, "arch": arch, "vector_reductions": vector_reductions}
    return {**named, "instructions": instructions(result.asm["cubin"])}


if __name__ == "__main__":
    archs = [int(arch) for arch in sys.argv[1:]]
    named = [(case, arch) for arch in archs for case in CASES] + [(case, max(archs)) for case in MORE_CASES]
    kinds = [(kernel, *one) for one in named for kernel in ("forward", "backward", "scatter")]
    print(json.dumps([found(*kind) for kind in kinds]))
