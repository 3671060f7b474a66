"""The exportable samplers in the engines: each a small graph of its own, all timed in one interleaved run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.attention.cases import Case, Inputs, random_inputs
from converters.conversion import quiet
from converters.formats import FORMATS
from converters.onnx import OPSET
from converters.xnnpack_passes import forget_origins, rewrite
from runtime.backends.executorch import set_threads
from runtime.backends.openvino import compile_options
from tfpose_edge.attention import EXPORTABLE, Sampler, get_sampler

Runner = Callable[[], Tensor]

CASES = tuple(Case((256, 192), (2, 3, 4, 5), part, 1, torch.float32) for part in ("encoder", "decoder"))
TOLERANCE = 1e-4
MIN_ROUNDS, MAX_ROUNDS = 5, 300
SETTLED_MS = 5.0
"""Runs shorter than this follow an untimed one, or they would pay for the caches that their predecessor took."""


class EngineCell(NamedTuple):
    """One sampler in one engine."""

    part: str
    sampler: str
    engine: str
    milliseconds: float
    """Median."""
    difference: float
    """Largest one from grid_sample in eager PyTorch."""
    rounds: int


class Operator(nn.Module):
    """A sampler as a graph of four inputs; the spatial shapes are constants of it, as in the network."""

    def __init__(self, sampler: Sampler, spatial_shapes: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.sampler, self.spatial_shapes = sampler, spatial_shapes

    def forward(self, value: Tensor, reference_points: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        """The inputs of `tfpose_edge.attention.samplers` -> (B, Q, H * D)."""
        return self.sampler(value, reference_points, offsets, logits, self.spatial_shapes)


def eager(operator: Operator, inputs: Inputs, folder: Path) -> Runner:
    """PyTorch itself."""

    @torch.inference_mode()
    def run() -> Tensor:
        return operator(*inputs)  # type: ignore[no-any-return]

    return run


def onnxruntime(operator: Operator, inputs: Inputs, folder: Path) -> Runner:
    """ONNX as the converter writes it, in ONNX Runtime, 1 thread."""
    import onnxruntime as engine

    program = torch.onnx.export(operator, inputs, dynamo=True, opset_version=OPSET, verbose=False)
    assert program is not None
    options = engine.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = engine.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feeds)[0])


def openvino(operator: Operator, inputs: Inputs, folder: Path) -> Runner:
    """OpenVINO from the exported program, with the back end's options, 1 thread."""
    import openvino as engine

    model = engine.convert_model(torch.export.export(operator, inputs), input=[tuple(x.shape) for x in inputs])
    compiled = engine.Core().compile_model(model, "CPU", compile_options("cpu", 1))
    request, arrays = compiled.create_infer_request(), [x.numpy() for x in inputs]

    def run() -> Tensor:
        request.infer(arrays, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)

    return run


def executorch(operator: Operator, inputs: Inputs, folder: Path) -> Runner:
    """ExecuTorch, lowered to XNNPACK as the converter does, 1 thread."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.runtime import Runtime

    exported = forget_origins(rewrite(torch.export.export(operator, inputs)))
    config = EdgeCompileConfig(_check_ir_validity=False)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], compile_config=config)
    in_place = MemoryPlanningPass(alloc_graph_input=False)  # inputs are not copied first: in a network they are not
    program = lowered.to_executorch(ExecutorchBackendConfig(memory_planning_pass=in_place))
    path = folder / "operator.pte"
    path.write_bytes(program.buffer)
    set_threads(1)
    loaded = Runtime.get().load_program(path.read_bytes())
    method = loaded.load_method("forward")
    arguments = list(inputs)

    def run() -> Tensor:
        assert loaded is not None  # the method borrows the program
        return method.execute(arguments)[0]  # type: ignore[no-any-return]

    return run


ENGINES: dict[str, Callable[[Operator, Inputs, Path], Runner]] = {
    "eager": eager,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "executorch": executorch,
}


def measure_engines(
    cases: Sequence[Case], samplers: Mapping[str, Sampler], seconds: float, progress: Callable[[str], None]
) -> list[EngineCell]:
    """Processor time of every sampler in every engine on every case, 1 thread; about `seconds` of rounds for each.

    Left out is what the engine's format cannot hold; samplers that are not ours are tried in all.
    Within a case the rounds of all are interleaved, so what else the machine does falls on all alike.
    """
    torch.set_num_threads(1)
    cells = []
    for case in cases:
        inputs = random_inputs(case, 0, torch.device("cpu"))
        expected = get_sampler("grid_sample")(*inputs, case.spatial_shapes)
        runners: dict[tuple[str, str], Runner] = {}
        differences = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, sampler in samplers.items():
                for engine, build in ((engine, build) for engine, build in ENGINES.items() if holds(engine, name)):
                    progress(f"{case.part} {name} {engine}")
                    with quiet():
                        runner = build(Operator(sampler, case.spatial_shapes), inputs, Path(folder))
                    runners[name, engine] = runner
                    differences[name, engine] = float((runner() - expected).abs().max())
            progress(f"{case.part} rounds")
            times = interleaved(runners, seconds * len(runners))
        cells += [
            EngineCell(case.part, *key, statistics.median(its), differences[key], len(its))
            for key, its in times.items()
        ]
    return cells


def holds(engine: str, sampler: str) -> bool:
    """Whether the format that the engine reads can hold that sampler; eager PyTorch and others' samplers always."""
    legal = next((row.samplers for row in FORMATS.values() if row.engine == engine), EXPORTABLE)
    return sampler in legal or sampler not in EXPORTABLE


def interleaved(runners: Mapping[tuple[str, str], Runner], seconds: float) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each runner, one after the other, round by round."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    started, rounds = time.perf_counter(), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and time.perf_counter() - started < seconds):
        for key, runner in runners.items():
            milliseconds = _timed(runner)
            times[key].append(_timed(runner) if milliseconds < SETTLED_MS else milliseconds)
        rounds += 1
    return times


def _timed(runner: Runner) -> float:
    """Milliseconds of processor time: with 1 thread the wall clock's, less what the thread waited for a CPU."""
    begun = time.process_time()
    runner()
    return (time.process_time() - begun) * 1e3


def engine_rows(cells: Sequence[EngineCell]) -> list[list[str]]:
    """Heading, and a row for each part and sampler: ms in each engine, the ratio to grid_sample there; - for none."""
    rows = [["part", "sampler", *(f"{engine} ms" for engine in ENGINES), *(f"{e} ratio" for e in ENGINES)]]
    at = {(cell.part, cell.sampler, cell.engine): cell.milliseconds for cell in cells}
    for part, sampler in dict.fromkeys((cell.part, cell.sampler) for cell in cells):
        row = [at.get((part, sampler, engine)) for engine in ENGINES]
        ratios = [ms and ms / at[part, "grid_sample", engine] for ms, engine in zip(row, ENGINES, strict=True)]
        rows.append([part, sampler, *("-" if x is None else f"{x:.2f}" for x in (*row, *ratios))])
    return rows
