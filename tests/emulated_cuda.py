"""Runs `fused_scatter.cu` on the CPU: the same source through g++, a thread for each of CUDA's, real barriers."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import torch

from tfpose_edge.attention import fused_scatter

PRELUDE = """
#include <barrier>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>
#define __device__ static
#define __global__
#define __constant__ static const
#define __launch_bounds__(n)
#define __shared__ thread_local
struct dim3 { int x, y, z; };
static thread_local dim3 threadIdx, blockIdx;
static dim3 gridDim;
static std::unique_ptr<std::barrier<>> block_barrier, warp_barriers[WARPS];
static void __syncthreads() { block_barrier->arrive_and_wait(); }
static void __syncwarp() { warp_barriers[threadIdx.x / 32]->arrive_and_wait(); }
static float __uint_as_float(unsigned int bits) { float f; std::memcpy(&f, &bits, 4); return f; }
static unsigned int __float_as_uint(float f) { unsigned int bits; std::memcpy(&bits, &f, 4); return bits; }
static unsigned long long atomicCAS(unsigned long long* at, unsigned long long expected, unsigned long long wanted) {
    __atomic_compare_exchange_n(at, &expected, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
static void atomicAdd(float* at, float x) {
    unsigned int* bits = (unsigned int*)at, seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(bits, &seen, __float_as_uint(__uint_as_float(seen) + x), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}
static unsigned long long* shared_memory;
"""
LAUNCH = """
extern "C" void launch(int grid_x, int grid_y, int grid_z, long long shared_words, const grad_t* grad,
                       const float* reference, const float* offsets, const logit_t* logits, const float* log_sum,
                       float* grad_value, int queries) {
    gridDim = {grid_x, grid_y, grid_z};
    for (int z = 0; z < grid_z; ++z) for (int y = 0; y < grid_y; ++y) for (int x = 0; x < grid_x; ++x) {
        std::vector<unsigned long long> memory(shared_words, 0x7fc000007fc00000ULL);  // NaN: nothing is zero by luck
        shared_memory = memory.data();
        block_barrier = std::make_unique<std::barrier<>>(32 * WARPS);
        for (auto& barrier : warp_barriers) barrier = std::make_unique<std::barrier<>>(32);
        std::vector<std::thread> threads;
        for (int t = 0; t < 32 * WARPS; ++t) threads.emplace_back([=] {
            threadIdx = {t, 0, 0}, blockIdx = {x, y, z};
            scatter_shared(grad, reference, offsets, logits, log_sum, grad_value, queries);
        });
        for (auto& thread : threads) thread.join();
    }
}
"""


class Kernel:
    """The kernel compiled for `plan`, called as torch's compiled CUDA kernels are; grids end before it returns."""

    def __init__(self, plan: fused_scatter.Plan, folder: Path) -> None:
        source = fused_scatter.SOURCE.read_text()
        declaration = "extern __shared__ pair_bits memory[];"
        assert source.count(declaration) == 1
        source = source.replace(declaration, "pair_bits* memory = shared_memory;")
        path = folder / "scatter.cpp"
        path.write_text(PRELUDE + source + LAUNCH)
        options = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread", *plan.options()]
        subprocess.run(["g++", *options, str(path), "-o", str(folder / "scatter.so")], check=True)
        self.launch, self.warps = ctypes.CDLL(str(folder / "scatter.so")).launch, plan.warps

    def __call__(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], args: list[torch.Tensor | int], shared_mem: int
    ) -> None:
        """One launch; args are the kernel's: six contiguous tensors and the number of queries."""
        assert block == (32 * self.warps, 1, 1) and shared_mem % 8 == 0
        *tensors, queries = args
        assert all(tensor.is_contiguous() for tensor in tensors)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
        self.launch(*grid, ctypes.c_longlong(shared_mem // 8), *pointers, queries)
