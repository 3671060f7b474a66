"""The benchmark of deformable attention: it finds wrong samplers, counts bytes right, and writes what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from accelerate.state import AcceleratorState

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks is a folder of the checkout, not an installed package

from benchmarks import msda  # noqa: E402
from benchmarks.attention import correctness, engines, speed, steps, table  # noqa: E402
from benchmarks.attention.cases import Case, random_inputs  # noqa: E402
from tfpose_edge import PRESETS  # noqa: E402
from tfpose_edge.attention import EXPORTABLE, get_sampler  # noqa: E402

CPU = torch.device("cpu")
TINY = Case((64, 96), (4, 5), "encoder", 2, torch.float32, n_heads=2, head_dim=4, n_points=2)

WRONG = {
    "swapped": "gather(value, points, offsets.flip(-1), logits, shapes)",
    "doubled_gradient": "gather(2 * value - value.detach(), points, offsets, logits, shapes)",
    "stopped_gradient": "gather(value, points, offsets, logits.detach() + 0 * logits, shapes)",
    "not_a_number": "gather(value, points, offsets, logits, shapes) * float('nan')",
    "other_shape": "gather(value, points, offsets, logits, shapes)[:, :1]",
}


@pytest.fixture(autouse=True)
def _threads_of_the_other_tests():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_sampler_is_marked_and_ends_with_3(name, tmp_path, monkeypatch, capsys):
    source = "from tfpose_edge.attention.gather import sample as gather\n"
    source += f"def {name}(value, points, offsets, logits, shapes):\n    return {WRONG[name]}\n"
    (tmp_path / f"wrong_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = ["--also", f"wrong_{name}:{name}", "--only", "gather", name, "--device", "cpu"]
    assert msda.main([*chosen, "--quick", "--check-only", "--seed", "5"]) == 3
    lines = capsys.readouterr().out.splitlines()
    verdicts = {line.split()[1]: line.split()[0] for line in lines if line.startswith(("ok", "FAIL"))}
    assert verdicts == {"gather": "ok", name: "FAIL"}
    assert any("seed 5" in line for line in lines)


def test_every_sampler_passes_with_half_values_too(capsys):
    assert msda.main(["--only", *EXPORTABLE, "--check-only", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("bf16") == 3 * len(EXPORTABLE)


def test_run_as_a_file_it_times_and_writes_what_was_asked_for(tmp_path):
    files = {name: tmp_path / f"figures.{name}" for name in ("json", "markdown", "plot")}
    command = [sys.executable, str(ROOT / "benchmarks" / "msda.py"), "--quick", "--filter", "decoder b1 fp32"]
    command += ["--only", "grid_sample", "gather", "--seconds", "0.1", "--device", "cpu"]
    command += [word for name, path in files.items() for word in (f"--{name}", str(path))]
    child = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert child.returncode == 0, child.stderr
    written = json.loads(files["json"].read_text())
    assert [cell["implementation"] for cell in written["cells"]] == ["grid_sample", "gather"]
    for cell in written["cells"]:
        assert cell["both_ms"] >= cell["backward_ms"] > 0 and cell["forward_ms"] > 0
        assert cell["forward_share_of_copy"] == pytest.approx(
            cell["forward_bytes"] / cell["forward_ms"] * 1e3 / written["copy_bytes_per_s"]
        )
    assert written["checks"] and all(check["passed"] for check in written["checks"])
    assert files["markdown"].read_text().count("\n| 256x192 C2-C5 decoder b1 fp32 |") == 2
    assert "256x192 C2-C5 decoder b1 fp32  gather" in child.stdout
    image = cv2.imread(str(files["plot"]))
    assert image.shape[1] > 900 and image.std() > 5


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--train-steps"], 5, "needs a CUDA GPU"),
        (["--device", "cuda"], 5, "legal is --device cpu"),
        (["--only", "bilinear"], 2, "not among what runs here: grid_sample, gather, float_gather, bag, tent"),
        (["--also", "nowhere:f"], 2, "legal is MODULE:FUNCTION"),
        (["--filter", "decoder b9"], 2, "nothing to time has 'decoder b9' in its name"),
        (["--json", "/nowhere/figures.json"], 2, "there is no folder /nowhere"),
    ],
)
def test_what_cannot_run_is_said_on_the_last_line(words, status, said, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    try:
        returned = msda.main(words)
    except SystemExit as end:
        returned = end.code
    assert returned == status
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_bytes_by_hand():
    shapes, queries = ((4, 6), (2, 3)), 30
    assert TINY.spatial_shapes == shapes and TINY.tokens == TINY.queries == queries
    inputs = random_inputs(TINY, 0, CPU)
    read = sum(tensor.nbytes for tensor in inputs)  # 30 queries x 4 samples touch all of 30 pixels
    output = 2 * 30 * 8 * 4
    assert TINY.forward_bytes() == read + output
    assert TINY.backward_bytes() == read + output + read
    few = TINY._replace(crop_hw=(256, 192), levels=(2, 3), part="decoder", batch=1)
    touched = 17 * 4 * 4  # corners of 17 queries' 4 samples, fewer than the 3840 pixels
    small = 17 * (2 + 3 * 2 * 4) * 4
    assert few.forward_bytes() == (touched + 17) * 8 * 4 + small
    assert few.backward_bytes() == few.forward_bytes() + 3840 * 8 * 4 + small


def test_held_bytes_count_each_storage_once_and_inputs_apart():
    inputs = tuple(tensor.requires_grad_() for tensor in random_inputs(TINY, 0, CPU))

    def sample(value, points, offsets, logits, shapes):
        grown = logits.exp()  # keeps its result
        return grown * grown + value.sum()  # keeps that result again, and nothing of the value

    assert speed.held_bytes(sample, inputs, TINY) == (0, inputs[3].nbytes)
    assert speed.held_bytes(lambda v, r, o, a, s: a * a[:1], inputs, TINY) == (inputs[3].nbytes, 0)


def test_cells_that_would_not_fit_or_take_too_long_are_not_begun(monkeypatch):
    def never(*inputs):
        raise AssertionError("was run")

    cell = speed.measure(TINY, "own", never, CPU, 0.1, copy_bytes_per_s=1.0)
    assert cell.reason.startswith("too slow: moves at least") and cell.forward_ms is None
    assert 2**20 < speed.free_bytes(CPU) < 2**50
    monkeypatch.setattr(speed, "free_bytes", lambda device: 1000)
    assert speed.measure(TINY, "own", never, CPU, 0.1, 1e9).reason.startswith("does not fit: needs about")
    text = table.as_text(table.speed_rows([table.as_record(cell, 1e9)]))
    assert "too slow" in text


def test_targets_are_met_or_missed():
    case = Case((256, 192), (2, 3, 4, 5), "encoder", 32, torch.bfloat16)
    lines = table.target_lines([speed.Cell(case, "fused", forward_ms=0.29, backward_ms=1.6)])
    assert [line.split(", ")[-1] for line in lines] == ["met", "missed", "missed"] and "5.517" in lines[2]
    assert not table.target_lines([speed.Cell(case._replace(batch=128), "fused", 0.29, 1.6)])


def test_positions_keep_away_from_whole_pixels():
    value, reference, offsets, logits = random_inputs(TINY, 0, CPU)
    moved = correctness.away_from_kinks(TINY, (value, reference, offsets.round(), logits))[2]
    sizes = torch.tensor([(6, 4), (6, 4), (3, 2), (3, 2)])
    position = reference[:, :, None, None] * sizes + moved - 0.5
    assert ((position - position.round()).abs() > correctness.KINK / 2).all()


def test_engines_compute_what_eager_does(monkeypatch):
    monkeypatch.setattr(engines, "ENGINES", {"eager": engines.eager, "onnxruntime": engines.onnxruntime})
    samplers = {name: get_sampler(name) for name in ("grid_sample", "gather")}
    samplers["zero"] = lambda *given: 0 * get_sampler("gather")(*given)
    samplers["bag"] = get_sampler("bag")  # which ONNX does not hold
    cells = engines.measure_engines([TINY._replace(batch=1)], samplers, 0.01, lambda line: None)
    wrong = {(cell.sampler, cell.engine) for cell in cells if cell.difference > engines.TOLERANCE}
    assert wrong == {("zero", "eager"), ("zero", "onnxruntime")}
    rows = {row[1]: row[2:] for row in engines.engine_rows(cells)}
    assert len(rows) == 5 and [cell == "-" for cell in rows["bag"]] == [False, True, False, True]
    assert all(cell.milliseconds > 0 for cell in cells)


def test_batches_double_until_one_does_not_fit(monkeypatch):
    def training_steps(config, preset, sampler, batch):
        if batch > 100:
            raise torch.OutOfMemoryError
        return steps.Step(preset, sampler, batch, 1.0, 1)

    monkeypatch.setattr(steps, "training_steps", training_steps)
    tried = []
    found = list(steps.double_until_full(["tiny"], ["gather"], tried.append))
    assert [step.batch for step in found] == [16, 32, 64, 96] and len(tried) == 5
    monkeypatch.setattr(steps, "FIRST_BATCH", 128)
    assert not list(steps.double_until_full(["tiny"], ["gather"], tried.append)) and len(tried) == 6


def test_a_training_step_runs_on_a_cpu():
    AcceleratorState._reset_state(reset_partial_state=True)  # its precision is one for the whole program
    try:
        step = steps.training_steps(PRESETS["tiny"], "tiny", "gather", batch=2, steps=1)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert step.pictures_per_s > 0 and step.peak_bytes is None
