"""Whole runs: what they leave behind, that they learn, and that a resumed run equals one that never stopped."""

from __future__ import annotations

import dataclasses
import json

import cv2
import pytest
import torch
from accelerate.state import AcceleratorState
from photographs import write_data_set
from safetensors.torch import save_file

from runtime.errors import InputError
from runtime.skeleton import LSP_14
from tfpose_edge import PRESETS, TFPose, load_checkpoint, read_provenance
from training import criterion, engine
from training.data.dataset import Batch, RenderedPeople
from training.optimizer import build_optimizer
from training.options import Options
from training.run import RunFolder
from training.train import main, train
from training.weights import load_backbone, load_weights


def options(tmp_path, **changes):
    base = {"output": tmp_path / "run", "rendered": 8, "batch_size": 4, "epochs": 2, "workers": 0, "threads": 1}
    return Options(**{**base, **changes})


def lines(folder, kind):
    return [line for line in RunFolder(folder).read_log() if line["kind"] == kind]


def weights(folder):
    return load_checkpoint(folder / "last.safetensors").state_dict()


def test_a_run_leaves_what_the_contract_says(tmp_path):
    data = write_data_set(tmp_path / "val", 3)
    lsp = write_data_set(tmp_path / "lsp", 4, LSP_14)
    folder = train(options(tmp_path, train=(lsp, data + ":1-2"), rendered=2, val=data, ema=True))
    assert {p.name for p in folder.iterdir()} == {
        "best.safetensors", "last.safetensors", "config.json", "metrics.jsonl", "curves.png", "state",
    }  # fmt: skip
    assert cv2.imread(str(folder / "curves.png")).shape[1] > 600
    epochs = lines(folder, "epoch")
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(0 <= line["oks"] <= 100 and 0 <= line["pck"] <= 100 for line in epochs)
    assert json.loads((folder / "config.json").read_text())["config"]["backbone"] == "resnet10"
    assert read_provenance(folder / "best.safetensors")["data"] == ["lsp/annotations.json", "val/annotations.json:1-2"]
    model = load_checkpoint(folder / "best.safetensors")
    assert model.config == PRESETS["tiny"]


def test_two_runs_do_not_share_a_folder(tmp_path):
    with RunFolder(tmp_path / "run").held(), pytest.raises(InputError, match="another run writes into it"):
        train(options(tmp_path, output=tmp_path / "run"))
    assert not (tmp_path / "run" / "config.json").exists()
    train(options(tmp_path, output=tmp_path / "run"))


def test_resume_continues_exactly(tmp_path, monkeypatch):
    """With dropout and averaged weights, stopped within the second epoch, and with a half-written log line."""
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(PRESETS["tiny"], dropout=0.1))
    straight = train(options(tmp_path, output=tmp_path / "straight", epochs=3, ema=True))
    broken = options(tmp_path, output=tmp_path / "broken", epochs=3, ema=True)
    stops = iter([False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("training.session.Session._must_stop", lambda self: next(stops, True))
        train(broken)
    progress, _ = RunFolder(tmp_path / "broken").load_state()
    assert (progress.epoch, progress.batch, progress.step) == (1, 1, 3)
    stopped, best = (load_checkpoint(tmp_path / "broken" / f"{name}.safetensors") for name in ("last", "best"))
    assert torch.equal(stopped.query_embed, best.query_embed)  # without --val, best = last
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "st')
    train(dataclasses.replace(broken, resume=True))
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(tmp_path / "broken")[name]), name
    losses = [[line["loss"] for line in lines(f, "epoch")] for f in (straight, tmp_path / "broken")]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_what_a_dead_run_left_behind_is_not_mixed_in(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"kind": "step", "step": 990}\n')
    (tmp_path / "run" / "best.safetensors").write_bytes(b"old")
    folder = train(options(tmp_path, epochs=1))
    assert all(line["step"] < 990 for line in RunFolder(folder).read_log())
    load_checkpoint(folder / "best.safetensors")


def test_a_run_is_neither_overwritten_nor_mixed_up(tmp_path):
    train(options(tmp_path, epochs=1))
    with pytest.raises(InputError, match="holds a run already"):
        train(options(tmp_path, epochs=1))
    with pytest.raises(InputError, match="seed was 0, is 7"):
        train(options(tmp_path, epochs=1, seed=7, resume=True))
    state = tmp_path / "run" / "state" / "state.pt"
    for damaged in (state.read_bytes()[:1000], b"no state at all"):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot resume from this state"):
            train(options(tmp_path, epochs=1, resume=True))
    with pytest.raises(InputError, match="nothing to resume"):
        train(options(tmp_path, output=tmp_path / "other", resume=True))
    assert not (tmp_path / "other").exists()


def test_it_learns():
    """Sixteen people by heart: every loss falls well below where it started."""
    engine.prepare_process(2)
    torch.manual_seed(0)
    config = PRESETS["tiny"]
    people = RenderedPeople(16, config)
    items = [people[0, i] for i in range(16)]
    batch = Batch(*(torch.stack([getattr(item, field) for item in items]) for field in Batch._fields))
    model = TFPose(config).train()
    model.reference_logits.data.copy_(torch.logit(engine.mean_keypoints(people, 16)))
    optimizer = build_optimizer(model, 2e-3, 1e-4, 1.0)
    history = []
    for _ in range(60):
        output = model(engine.as_input(batch.crops))
        terms = criterion.losses(
            output, model.heatmaps(output.memory), batch, torch.full((17,), 0.08), config.input_size_wh
        )
        optimizer.zero_grad()
        criterion.weighted_sum(terms).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        history.append({name: float(term.detach()) for name, term in terms.items()})
    assert history[-1]["loss_keypoints"] < 0.4 * history[0]["loss_keypoints"]
    assert history[-1]["loss_heatmaps"] < 0.4 * history[0]["loss_heatmaps"]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(criterion, "_score_entropy", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(engine.NonFiniteLoss, match=r"loss_keypoints 0\.\d+, loss_heatmaps .*, loss_scores nan"):
        train(options(tmp_path))


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(tmp_path):
    AcceleratorState._reset_state()  # one precision per process is its rule
    half = train(options(tmp_path, output=tmp_path / "half", precision="bf16"))
    AcceleratorState._reset_state()
    full = train(options(tmp_path, output=tmp_path / "full", precision="fp32"))
    losses = [lines(folder, "epoch")[-1]["loss"] for folder in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1) and losses[0] != losses[1]
    assert all(value.dtype != torch.bfloat16 for value in weights(half).values())


def test_initial_weights(tmp_path):
    first = train(options(tmp_path, epochs=1)) / "last.safetensors"
    again = options(tmp_path, output=tmp_path / "second", epochs=1, initial_weights=first, lr=1e-12)
    close = weights(train(again))
    for name, value in weights(first.parent).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(close[name], value, atol=1e-8, rtol=0)
    with pytest.raises(InputError, match="another configuration"):
        load_weights(TFPose(dataclasses.replace(PRESETS["tiny"], ffn_dim=64)), first)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_weights(TFPose(PRESETS["tiny"]), tmp_path / "none.safetensors")


def test_backbone_weights(tmp_path):
    model = TFPose(PRESETS["tiny"])
    other = TFPose(PRESETS["tiny"])
    state = {**other.backbone.state_dict(), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    torch.save(state, tmp_path / "r.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "r.safetensors")
    for source in (str(tmp_path / "r.pth"), str(tmp_path / "r.safetensors")):
        model.backbone.layer4[0].conv2.weight.data.zero_()
        load_backbone(model, source)
        assert torch.equal(model.backbone.layer4[0].conv2.weight, other.backbone.layer4[0].conv2.weight)


def test_backbone_weights_from_a_url(tmp_path, monkeypatch):
    model = TFPose(PRESETS["tiny"])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    torch.save(TFPose(PRESETS["tiny"]).backbone.state_dict(), tmp_path / "r.pth")
    load_backbone(model, (tmp_path / "r.pth").as_uri())
    with pytest.raises(InputError, match="cannot read backbone weights"):
        load_backbone(model, (tmp_path / "none.pth").as_uri())


def test_wrong_backbone_weights(tmp_path):
    model = TFPose(PRESETS["tiny"])
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not ImageNet weights of resnet10") as caught:
        load_backbone(model, str(tmp_path / "w.pth"))
    assert len(str(caught.value)) < 500
    for name in ("g.pth", "g.safetensors"):
        (tmp_path / name).write_bytes(b"garbage, and enough of it to look like something")
    for name in ("g.pth", "g.safetensors", "none.pth"):
        with pytest.raises(InputError, match="cannot read backbone weights"):
            load_backbone(model, str(tmp_path / name))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--preset", "huge"], 2, "unknown preset 'huge'; legal are tiny, edge-n"),
        (["--sampler", "bilinear"], 2, "unknown sampler 'bilinear'; legal are auto, grid_sample"),
        (["--epochs", "0"], 2, "--epochs is 0; it must be above 0"),
        (["--rendered", "0"], 4, "nothing to train on"),
        (["--workers", "-1"], 2, "--workers is -1"),
        (["--train", "nothing"], 4, "is not ANN.json:IMAGES"),
        (["--train", "none.json:none"], 4, "none.json: cannot read annotations"),
    ],
)
def test_command_line_errors(tmp_path, capsys, arguments, code, message):
    given = ["--output", str(tmp_path / "run"), "--rendered", "4", *arguments]
    assert main(given) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_missing_picture_is_noticed_before_work_starts(tmp_path, capsys):
    data = write_data_set(tmp_path / "set", 2)
    (tmp_path / "set" / "images" / "001.png").unlink()
    assert main(["--train", data, "--output", str(tmp_path / "run"), "--workers", "0"]) == 4
    message = capsys.readouterr().err
    assert "1 of 2 persons are unusable (at most 1% may be): annotation 101: " in message
    assert "001.png: no such picture" in message
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_in_a_worker_is_one_line(tmp_path, capfd):
    data = write_data_set(tmp_path / "set", 2)
    (tmp_path / "set" / "images" / "001.png").write_bytes(b"no picture")
    given = ["--train", data, "--output", str(tmp_path / "run"), "--workers", "1", "--batch-size", "2"]
    engine.prepare_process(1)
    assert main(given) == 4
    [line] = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert f"1 of 2 persons are unusable (at most 1% may be): annotation 101: {tmp_path / 'set' / 'images'}" in line
    assert "001.png: not a readable picture" in line


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "run").write_text("a file")
    assert main(["--output", str(tmp_path / "run"), "--rendered", "4"]) == 4
    assert "is a file" in capsys.readouterr().err


def test_help_names_every_preset(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0 and all(preset in text for preset in PRESETS)
