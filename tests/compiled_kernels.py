"""Compiles the fused sampler's Triton kernels for GPUs that need not be there; prints what came out as JSON.

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
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def compiled(kernel: str, dtype: str, arch: int):
    """The kernel as the launcher would have it compiled: batch 32, encoder, D 32."""
    function = getattr(fused_kernels, kernel)
    value = torch.empty(32, 4080, 8, 32, dtype=TYPES[dtype], device="meta")
    offsets = torch.empty(32, 4080, 8, 16, 2, device="meta")
    element_size = 4 if kernel == "scatter" else value.element_size()
    constants = fused_launch.constants(value, offsets, SHAPES, element_size)
    constants |= {"forward": {"BLOCK_S": 16}, "scatter": {"LEVELS": 4}}.get(kernel, {})
    of_values = {"value", "out", "grad", "attention_logits", "grad_logits"}
    signature = {name: "*" + (dtype if name in of_values else "fp32") for name in function.arg_names}
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


def found(kernel: str, dtype: str, arch: int) -> dict[str, object]:
    """What the test asks of one kernel."""
    result = compiled(kernel, dtype, arch)
    vector_reductions = len(re.findall(r"\b(?:red|atom)\.global\S*\.add\.v4\.f32", result.asm["ptx"]))
    named = {"kernel": kernel, "dtype": dtype, "arch": arch, "vector_reductions": vector_reductions}
    return {**named, "instructions": instructions(result.asm["cubin"])}


if __name__ == "__main__":
    kinds = [(k, t, int(a)) for a in sys.argv[1:] for k in ("forward", "backward", "scatter") for t in TYPES]
    print(json.dumps([found(*kind) for kind in kinds]))
