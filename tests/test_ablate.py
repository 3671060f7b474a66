"""Comparisons: the rows of the paper's tables, a whole comparison, restarts, budgets and reports."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import cv2
import pytest
import torch
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import LSP_14
from tfpose_edge import PRESETS, TFPose, save_checkpoint
from training import ablation, comparison
from training.ablate import main
from training.networks import configuration
from training.row import Run, RunFailed, keep_layers, last_words
from training.run import Progress, RunFolder
from training.tables import TABLES

SMALL = ("--preset", "tiny", "--change", "input_size_wh=64,96", "backbone_width=8", "ffn_dim=32", "heatmap_channels=32")
MACHINE = ("--workers", "0", "--threads", "1")


def order(tmp_path, table="4", **changes):
    base = {
        "name": table, "table": TABLES[table], "preset": "tiny", "changes": ("input_size_wh=64,96",), "data": ("d",),
        "val": "v", "seeds": (0, 1), "output": tmp_path, "jobs": 1, "extra": (),
    }  # fmt: skip
    return ablation.Order(**{**base, **changes})


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("preset", ["the paper's", "tiny"])
def test_every_row_is_a_network(name, preset):
    table = TABLES[name]
    preset = table.preset if preset == "the paper's" else preset
    for row in table.rows:
        config = configuration(preset, row.changes)
        assert row.layers is None or 1 <= row.layers <= config.num_decoder_layers
    assert len({row.name for row in table.rows}) == len(table.rows)


def test_rows_of_the_papers_networks_are_its_presets():
    """But for the auxiliary loss, which presets train with."""

    def rows(name):
        return {row.name: row for row in TABLES[name].rows}

    q2q = rows("1")
    assert configuration("r18-ne0", q2q["q2q, with auxiliary loss"].changes) == PRESETS["r18-ne0"]
    assert configuration("r18-ne0", q2q["no q2q, with auxiliary loss"].changes) == PRESETS["r18-ne0-noq2q"]
    assert configuration("r18-ne0-c128", rows("2")["C 128"].changes).d_model == PRESETS["r18-ne0-c128"].d_model
    assert configuration("r18-ne6", rows("4")["with auxiliary loss"].changes) == PRESETS["r18-ne6"]
    assert not configuration("r18-ne6", rows("4")["without auxiliary loss"].changes).heatmap_head
    assert [row.paper for row in TABLES["1"].rows] == [63.2, 64.5, None, None]
    assert [row.paper for row in TABLES["3"].rows[:6]] == [65.7, 66.9, 67.1, 67.2, 67.2, 67.2]


def test_rows_that_read_out_share_one_run(tmp_path):
    folders = {order(tmp_path, "3").run(row, 0, 5).folder for row in TABLES["3"].rows}
    assert len(folders) == 6


def test_tables_share_the_runs_of_equal_networks(tmp_path):
    def commands(table, preset):
        wanted = order(tmp_path, table, preset=preset)
        return {(wanted.run(row, 0, 5).folder, wanted.run(row, 0, 5).arguments) for row in TABLES[table].rows}

    assert commands("4", "tiny") == commands("figure5", "tiny")
    assert commands("figure5", "r18-ne0") < commands("1", "r18-ne0")
    assert len(commands("rivals", "r18-ne0") & commands("1", "r18-ne0")) == 1
    assert commands("2", "r18-ne0") & commands("1", "r18-ne0")


def test_a_whole_comparison(tmp_path, capsys):
    """Two rows on rendered people; the second time nothing is trained, and another command is refused."""
    data, output = write_data_set(tmp_path / "set", 16, LSP_14), tmp_path / "out"
    given = ["--table", "4", *SMALL, "--data", data, "--val", data + ":1-4", "--epochs", "1", "--jobs", "2"]
    given += ["--output", str(output), "--json", str(tmp_path / "report.json"), "--", *MACHINE]
    assert main(given) == 0
    printed, progress = capsys.readouterr()
    assert "| without auxiliary loss | " in printed and "| 67.2 |" in printed and "| 69.5 |" in printed
    assert progress.count("epoch 1: loss ") == 2
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads((output / "table-4.json").read_text()) and report["metric"] == "pck"
    assert (output / "table-4.md").read_text().strip() == printed.strip()
    assert cv2.imread(str(output / "table-4.png")).shape[1] > 600
    for row, has_head in zip(report["rows"], (False, True), strict=True):
        assert row["config"]["heatmap_head"] is has_head and row["values"]["0"] == row["mean"]
        assert row["values"]["0"] == pytest.approx(row["curves"]["0"][-1]["pck"], abs=0.01)  # one evaluation, two ways
        folder = Path(row["commands"][0].split("--output ")[1])
        assert "persons" in (folder / "log.txt").read_text()
        assert f"heatmap_head={str(has_head).lower()}" in row["commands"][0] or has_head
    written = {path: path.stat().st_mtime_ns for path in output.rglob("last.safetensors")}
    assert main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("last.safetensors")} == written
    assert main([*given, "--lr", "1e-3"]) == 4
    assert "holds a run of another command" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(tmp_path):
    arguments = ("--preset", "tiny", "--rendered", "4", "--batch-size", "2", "--epochs", "6", "--log-every", "1")
    run, stop, heard = Run("it", tmp_path / "run", arguments), threading.Event(), []

    def after_an_epoch(line):
        heard.append(line)
        stop.set()

    run.train(MACHINE, after_an_epoch, stop)
    done = len(run.epochs())
    assert 0 < done < 6 and heard[0].startswith("it: epoch ")
    run.train(MACHINE, heard.append, threading.Event())
    assert [line["epoch"] for line in run.epochs()] == list(range(1, 7))
    assert heard[-1].startswith("it: epoch 6: loss ")
    before = (tmp_path / "run" / "log.txt").stat().st_size
    run.train(MACHINE, heard.append, threading.Event())
    assert (tmp_path / "run" / "log.txt").stat().st_size == before


def test_a_run_that_fails_says_why(tmp_path):
    run = Run("it", tmp_path / "run", ("--train", "none.json:none"))
    with pytest.raises(RunFailed, match=r"it: training ended with code 4: error: none.json: cannot read"):
        run.train(MACHINE, print, threading.Event())


def test_layers_are_read_out_of_one_network(tmp_path):
    data = write_data_set(tmp_path / "set", 4)
    torch.manual_seed(0)
    model = TFPose(PRESETS["tiny"])
    for head in model.keypoint_heads:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.05)
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "last.safetensors", model)
    run = Run("it", tmp_path / "run", ())
    points = [run.measure(data, "oks", layers)["per_keypoint"] for layers in (1, 2, 3, None)]
    assert points[2] == points[3] and points[0] != points[1] != points[2]
    crops = torch.rand(1, 3, 128, 96) * 255
    second = model.eval()(crops).per_layer[1]
    keep_layers(model, 2)
    assert torch.equal(model(crops).keypoints, second)
    with pytest.raises(ValueError, match="4 decoder layers"):
        keep_layers(model, 4)


def test_a_budget_is_what_the_slowest_row_needs(tmp_path, monkeypatch):
    """Ten steps take 10 s and 20 s, an epoch has 30 steps: 0.85 of ten minutes are eight slow epochs."""
    started = []

    def start(run, machine, say, stop):
        started.append(run.folder)
        RunFolder(run.folder).write_config({"steps": 30})
        RunFolder(run.folder).save_state(Progress(step=10, seconds=10.0 * len(started)), {})

    monkeypatch.setattr(Run, "start", start)
    assert ablation._epochs_within(order(tmp_path), 10.0) == int(0.85 * 600 / 60)
    assert ablation._epochs_within(order(tmp_path), 10.0) == 8 and len(started) == 2
    assert ablation._epochs_within(order(tmp_path), 0.01) == 1


def test_processors_are_shared(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert order(tmp_path, jobs=2).machine == ("--workers", "2", "--threads", "2")
    assert order(tmp_path, jobs=8).machine == ("--workers", "0", "--threads", "1")
    assert order(tmp_path, extra=("--threads", "3")).machine == ("--workers", "4")


def test_one_failure_lets_the_others_end(tmp_path):
    done = []

    def work(run, machine, stop):
        if run.name.endswith("seed 0"):
            raise RunFailed("broken")
        done.append(run.name)

    wanted = order(tmp_path)
    runs = [wanted.run(row, seed, 1) for row in TABLES["4"].rows for seed in (0, 1)]
    with pytest.raises(RunFailed, match="2 of 4 runs failed: broken"):
        ablation._side_by_side(wanted, runs, work)
    assert len(done) == 2


def test_seeds_and_spread():
    assert comparison.summary([1.0, 3.0]) == {"mean": 2.0, "spread": pytest.approx(2**0.5)}
    assert comparison.summary([1.0]) == {"mean": 1.0, "spread": None}
    row = {"row": "a", "mean": 2.0, "spread": 1.41, "values": {"0": 1.0, "1": 3.0}, "minutes": 4.0, "paper": None}
    report = {"title": "T", "about": "A", "metric": "oks", "rows": [{**row, "note": "", "commands": ["c"]}]}
    assert "| a | 2.0 ± 1.4 | 0: 1.0, 1: 3.0 | 4.0 | - |" in comparison.markdown(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--change", "d_model=33"], "d_model is 33"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--budget-minutes", "nan"], "--budget-minutes is nan"),
        (["--seeds", "1", "1"], "every seed once"),
        (["--epochs", "1", "--budget-minutes", "1"], "not allowed with"),
        (["--json", "none/x.json"], "there is no folder none"),
    ],
)
def test_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--table", "1", "--val", "v.json:images", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_missing_validation_data(tmp_path, capsys):
    assert main(["--table", "1", "--val", "none.json:none", "--output", str(tmp_path / "o")]) == InputError.exit_code
    assert "none.json" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_the_last_words_of_a_log_are_not_a_frame():
    assert last_words(["epoch 1", "error: none.json: cannot read"]) == "error: none.json: cannot read"
    frame = [
        "usage: x",
        "╭─ Unrecognized options ──╮",
        "│ Unrecognized options: --batch-sz │",
        "│ ──────── │",
        "│ Perhaps: │",
        "╰────╯",
    ]
    assert last_words(frame) == "Unrecognized options: --batch-sz Perhaps:"
