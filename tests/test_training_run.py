"""Whole runs: what they leave behind, that they learn, and that a resumed run equals one that never stopped."""

from __future__ import annotations

import dataclasses
import json

import cv2
import pytest
import torch
from accelerate.state import AcceleratorState
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import LSP_14
from tfpose_edge import PRESETS, TFPose, load_checkpoint, read_provenance
from training import criterion, engine
from training.data.dataset import Batch, RenderedPeople
from training.optimizer import build_optimizer
from training.options import Options
from training.run import RunFolder
from training.session import load_backbone, load_weights
from training.train import main, train


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
    assert read_provenance(folder / "best.safetensors")["data"] == [lsp, data + ":1-2"]
    model = load_checkpoint(folder / "best.safetensors")
    assert model.config == PRESETS["tiny"]


def test_resume_continues_exactly(tmp_path, monkeypatch):
    straight = train(options(tmp_path, output=tmp_path / "straight", epochs=3, ema=True))
    broken = options(tmp_path, output=tmp_path / "broken", epochs=3, ema=True)
    stops = iter([False, False, True])  # in the middle of the second epoch
    with monkeypatch.context() as patch:
        patch.setattr("training.session.Session._must_stop", lambda self: next(stops, True))
        train(broken)
    assert len(lines(tmp_path / "broken", "epoch")) == 1
    train(dataclasses.replace(broken, resume=True))
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(tmp_path / "broken")[name]), name
    losses = [[line["loss"] for line in lines(f, "epoch")] for f in (straight, tmp_path / "broken")]
    assert losses[0] == losses[1]


def test_a_run_is_neither_overwritten_nor_mixed_up(tmp_path):
    train(options(tmp_path, epochs=1))
    with pytest.raises(InputError, match="holds a run already"):
        train(options(tmp_path, epochs=1))
    with pytest.raises(InputError, match="seed was 0, is 7"):
        train(options(tmp_path, epochs=1, seed=7, resume=True))
    state = tmp_path / "run" / "state" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
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
    monkeypatch.setattr(criterion, "_loss_scores", lambda *_: torch.tensor(float("nan")))
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
    load_backbone(model, tmp_path / "r.pth")
    assert torch.equal(model.backbone.layer4[0].conv2.weight, other.backbone.layer4[0].conv2.weight)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not weights of torchvision's resnet10"):
        load_backbone(model, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no such file"):
        load_backbone(model, tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--preset", "huge"], 2, "unknown preset 'huge'; legal are tiny, r18-ne0"),
        (["--sampler", "bilinear"], 2, "unknown sampler 'bilinear'; legal are auto, grid_sample"),
        (["--epochs", "0"], 2, "--epochs is 0; it must be above 0"),
        (["--train", "nothing"], 4, "is not ANN.json:IMAGES"),
        (["--train", "none.json:none"], 4, "none.json: cannot read annotations"),
    ],
)
def test_command_line_errors(tmp_path, capsys, arguments, code, message):
    given = [*arguments, "--output", str(tmp_path / "run"), "--rendered", "4"]
    assert main(given) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_missing_picture_stops_training_with_its_name(tmp_path, capsys):
    data = write_data_set(tmp_path / "set", 2)
    (tmp_path / "set" / "images" / "001.png").unlink()
    assert main(["--train", data, "--output", str(tmp_path / "run"), "--workers", "0"]) == 4
    assert "001.png: no such picture" in capsys.readouterr().err
