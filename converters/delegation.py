"""What a delegate of ExecuTorch takes: the partitioner of each delegate, and the count of what it left outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

UNCOUNTED = ("getitem", "executorch_call_delegate")
"""Nodes that compute nothing themselves."""


@dataclass(frozen=True)
class Delegation:
    """How a lowered program is divided between a delegate and ExecuTorch's own kernels."""

    delegate: str
    """A key of `DELEGATES`."""
    partitions: int
    """Calls of the delegate."""
    inside: int
    """Operations in all partitions."""
    outside: dict[str, int]
    """Operation -> how often a kernel of ExecuTorch computes it."""

    @property
    def share(self) -> float:
        """Operations inside / all operations, 0..1."""
        total = self.inside + sum(self.outside.values())
        return self.inside / total if total else 0.0

    def as_json(self) -> dict[str, Any]:
        """What the sidecar stores."""
        counts = {"operations_inside": self.inside, "operations_outside": sum(self.outside.values())}
        own = {"delegate": self.delegate, "partitions": self.partitions, **counts, "share": round(self.share, 4)}
        return {**own, "outside": self.outside}

    def __str__(self) -> str:
        outside = ", ".join(f"{count} {name}" for name, count in self.outside.items()) or "nothing"
        total = self.inside + sum(self.outside.values())
        return (
            f"{self.partitions} {self.delegate} partitions, {self.inside} of {total} operations inside"
            f" ({self.share:.1%}); outside: {outside}"
        )


def count(program: Any, delegate: str) -> Delegation:
    """Count the operations of a lowered program (an `EdgeProgramManager`)."""
    graph_module = program.exported_program().graph_module
    outside: Counter[str] = Counter()
    partitions = inside = 0
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        name = node.target.__name__
        if name == "executorch_call_delegate":
            partitions += 1
            inside += _operations(getattr(graph_module, node.args[0].name).original_module.graph_module)
        elif name not in UNCOUNTED:
            outside[name.removeprefix("aten.").removeprefix("dim_order_ops.").partition(".")[0]] += 1
    return Delegation(delegate, partitions, inside, dict(outside.most_common()))


def _operations(graph_module: Any) -> int:
    called = (node.target.__name__ for node in graph_module.graph.nodes if node.op == "call_function")
    return sum(name not in UNCOUNTED for name in called)


def xnnpack_partitioners() -> list[Any]:
    """XNNPACK's, which leaves the sum over gathered rows to a kernel: its own would repack every row first."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS, BMMConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class SharedMatrices(BMMConfig):  # type: ignore[misc]
        """Products of stacks of matrices, unless each matrix is used for one row only."""

        def check_constraints(self, node: Any, ep: Any) -> bool:
            rows = node.args[0].meta["val"].shape[1]
            return bool(super().check_constraints(node, ep)) and rows > 1

    return [XnnpackPartitioner([SharedMatrices if c is BMMConfig else c for c in ALL_PARTITIONER_CONFIGS])]


def coreml_partitioners() -> list[Any]:
    """Core ML's: fp32, for iOS 16 and macOS 13 on."""
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=coremltools.precision.FLOAT32, minimum_deployment_target=coremltools.target.iOS16
    )
    return [CoreMLPartitioner(compile_specs=specs)]


def vulkan_partitioners() -> list[Any]:
    """Vulkan's, for GPUs of Android and others."""
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return [VulkanPartitioner()]


class Delegate(NamedTuple):
    """One row: what can take over parts of an ExecuTorch program."""

    partitioners: Callable[[], list[Any]]
    sampler: str  # of the graph, unless another is asked for
    is_everywhere: bool  # it computes on any machine, so its programs are run and compared


DELEGATES: dict[str, Delegate] = {
    "xnnpack": Delegate(xnnpack_partitioners, "float_gather", True),
    "coreml": Delegate(coreml_partitioners, "grid_sample", False),
    "vulkan": Delegate(vulkan_partitioners, "tent", False),
}
"""Name -> row; programs for delegates that do not compute everywhere stay unverified."""
