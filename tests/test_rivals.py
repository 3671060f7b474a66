"""DeepPose and SimpleBaseline: shapes, decoding, learning, checkpoints; and presets with changes."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from photographs import write_data_set

from converters.__main__ import main as convert
from runtime.errors import InputError
from tfpose_edge import PRESETS, TFPose, load_checkpoint
from training import criterion, engine, networks
from training.data.dataset import Batch, RenderedPeople
from training.evaluate import main as evaluate
from training.optimizer import build_optimizer
from training.options import Options, with_defaults
from training.rivals import decode
from training.run import RunFolder
from training.train import train
from training.weights import load_weights

CONFIG = PRESETS["tiny"]


def batch_of(count, config=CONFIG):
    people = RenderedPeople(count, config)
    items = [people[0, i] for i in range(count)]
    return people, Batch(*(torch.stack([getattr(item, field) for item in items]) for field in Batch._fields))


def losses(model, batch):
    output = model(engine.as_input(batch.crops))
    heatmaps = model.heatmaps(output.memory) if model.config.heatmap_head else None
    size = model.config.input_size_wh
    return criterion.losses(output, heatmaps, batch, torch.full((17,), 0.08), size)


@pytest.mark.parametrize(
    ("name", "layers", "memory"), [("deeppose", 1, (2, 128)), ("simplebaseline", 0, (2, 17, 32, 24))]
)
def test_shapes(name, layers, memory):
    output = networks.build(name, CONFIG).eval()(torch.rand(2, 3, 128, 96) * 255)
    assert output.keypoints.shape == (2, 17, 2) and output.scores.shape == (2, 17)
    assert output.per_layer.shape == (layers, 2, 17, 2) and output.memory.shape == memory
    assert output.scores.min() >= 0 and output.scores.max() <= 1


def test_decoding_finds_a_gaussian_to_a_quarter_px():
    """Also beside the map's edge, where there is no second neighbour."""
    truth = torch.rand(8, 17, 2, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    keypoints, scores = decode(criterion.gaussian_heatmaps(truth, 64, 48))
    inner = (
        (truth * torch.tensor([48.0, 64]) > 1) & (truth * torch.tensor([48.0, 64]) < torch.tensor([47.0, 63]))
    ).all(-1)
    error = ((keypoints - truth) * torch.tensor([48.0, 64])).abs()
    assert error[inner].max() <= 0.25 + 1e-4
    assert error.max() <= 0.5 + 1e-4
    assert scores.min() > 0.9 and scores.max() <= 1


def test_decoding_by_hand():
    heatmaps = torch.zeros(1, 1, 4, 6)
    heatmaps[0, 0, 2, 3], heatmaps[0, 0, 2, 4], heatmaps[0, 0, 1, 3] = 0.8, 0.3, 0.1
    keypoints, scores = decode(heatmaps)
    assert keypoints[0, 0].tolist() == pytest.approx([3.75 / 6, 2.25 / 4]) and float(scores) == pytest.approx(0.8)


@pytest.mark.parametrize(("name", "term"), [("deeppose", "loss_keypoints"), ("simplebaseline", "loss_heatmaps")])
def test_a_rival_learns_eight_people_by_heart(name, term):
    engine.prepare_process(1)
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, input_size_wh=(64, 64))
    people, batch = batch_of(8, config)
    model = networks.build(name, config).train()
    networks.start_at(model, engine.mean_keypoints(people, 8))
    optimizer = build_optimizer(model, 1e-3, 1e-4, 1.0)
    inside = batch.labelled & ((batch.keypoints >= 0) & (batch.keypoints <= 1)).all(-1)
    history = []
    for _ in range(60):
        terms = losses(model, batch)
        optimizer.zero_grad()
        criterion.weighted_sum(terms).backward()
        optimizer.step()
        history.append(float(terms[term].detach()))
    with torch.inference_mode():
        error = (model(engine.as_input(batch.crops)).keypoints - batch.keypoints).abs()[inside].mean()
    assert history[-1] < 0.3 * history[0]
    assert error < 0.02, f"off by {error:.3f} of the crop, whose heat maps' px are 0.0625"


def test_what_each_learns():
    """DeepPose has no heat maps, SimpleBaseline nothing but; scores of regression do not move the backbone."""
    _, batch = batch_of(2)
    assert set(losses(networks.build("deeppose", CONFIG), batch)) == {"loss_keypoints", "loss_scores"}
    assert set(losses(networks.build("simplebaseline", CONFIG), batch)) == {"loss_heatmaps"}
    model = networks.build("deeppose", CONFIG)
    losses(model, batch)["loss_scores"].backward()
    assert model.backbone.conv1.weight.grad is None and model.score.weight.grad is not None


def test_deeppose_starts_at_the_mean_pose():
    mean = torch.rand(17, 2)
    model = networks.build("deeppose", CONFIG).eval()
    networks.start_at(model, mean)
    assert (model(torch.rand(1, 3, 128, 96) * 255).keypoints[0] - mean).abs().max() < 0.2


@pytest.mark.parametrize("name", networks.RIVALS)
def test_a_rival_trains_is_measured_and_is_not_converted(tmp_path, capsys, name):
    data = write_data_set(tmp_path / "set", 4)
    common = {"train": (data,), "val": data, "batch_size": 2, "workers": 0, "threads": 1, "network": name}
    folder = train(Options(output=tmp_path / "run", epochs=1, **common))
    [epoch] = [line for line in RunFolder(folder).read_log() if line["kind"] == "epoch"]
    assert 0 <= epoch["pck"] <= 100
    assert evaluate([str(folder / "last.safetensors"), "--data", data, "--metric", "pck"]) == 0
    measured = float(capsys.readouterr().out.split()[1])
    assert measured == pytest.approx(epoch["pck"], abs=0.01)
    assert convert([str(folder / "last.safetensors"), "--to", "onnx", "--output", str(tmp_path / "out")]) == 3
    assert f"rival of tfpose-edge/1, only for comparisons: {name}" in capsys.readouterr().err


@pytest.mark.parametrize("name", networks.RIVALS)
def test_a_checkpoint_of_a_rival(tmp_path, name):
    model = networks.build(name, CONFIG).eval()
    networks.save(path := tmp_path / "r.safetensors", model, {"epochs": 1})
    crops = torch.rand(1, 3, 128, 96) * 255
    assert torch.equal(networks.load(path)(crops).keypoints, model(crops).keypoints)
    with pytest.raises(ValueError, match=r"not a checkpoint of tfpose-edge \(format is 'rival"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="another configuration"):
        load_weights(TFPose(CONFIG), path)


def test_load_reads_tfpose_too(tmp_path):
    networks.save(path := tmp_path / "t.safetensors", TFPose(CONFIG))
    assert isinstance(networks.load(path), TFPose)
    with pytest.raises(ValueError, match="no such checkpoint"):
        networks.load(tmp_path / "none.safetensors")


def test_changes_make_a_configuration_and_back():
    texts = ("input_size_wh=64,96", "d_model=32", "heatmap_head=false", "padding=1", "backbone=resnet18")
    config = networks.configuration("tiny", texts)
    assert config == dataclasses.replace(
        CONFIG, input_size_wh=(64, 96), d_model=32, heatmap_head=False, padding=1, backbone="resnet18"
    )
    assert networks.configuration("tiny", networks.changes_of("tiny", config)) == config
    assert networks.changes_of("tiny", CONFIG) == ()
    assert networks.configuration("tiny", ("keypoint_names=nose,neck",)).num_keypoints == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("d_model", "is not FIELD=VALUE; legal fields are backbone,"),
        ("depth=3", "legal fields are"),
        ("d_model=wide", "'wide' is not an integer"),
        ("d_model=33", "d_model is 33"),
        ("heatmap_head=0", "'0' is not true or false"),
        ("input_size_wh=64,", "'' is not an integer"),
    ],
)
def test_changes_that_are_not_legal(change, message):
    with pytest.raises(ValueError, match=message):
        with_defaults(Options(change=(change,)))


def test_a_changed_preset_trains_and_says_so(tmp_path):
    folder = train(
        Options(
            output=tmp_path / "run", rendered=4, batch_size=2, epochs=1, workers=0, threads=1,
            change=("heatmap_head=false", "num_decoder_layers=1"),
        )
    )  # fmt: skip
    assert load_checkpoint(folder / "last.safetensors").config.num_decoder_layers == 1
    written = json.loads((folder / "config.json").read_text())
    assert written["config"]["heatmap_head"] is False and written["steps"] == 2
    with pytest.raises(InputError, match=r"change was .*num_decoder_layers=1"):
        train(Options(output=folder, rendered=4, batch_size=2, epochs=1, workers=0, threads=1, resume=True))
