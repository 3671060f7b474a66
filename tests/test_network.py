"""The network: shapes, configuration, checkpoint, costs, and the paper's equation 4."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch

from tfpose_edge import PRESETS, PoseConfig, TFPose, load_checkpoint, read_provenance, save_checkpoint
from tfpose_edge.attention import get_sampler
from tfpose_edge.flops import count_gmacs, main, paper_table
from tfpose_edge.position import pixel_centres, sine_embedding
from tfpose_edge.resnet import ResNet

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TFPose(TINY).eval()


def crops(batch=2, config=TINY, seed=0):
    width, height = config.input_size_wh
    return torch.randint(0, 256, (batch, 3, height, width), generator=torch.Generator().manual_seed(seed)).float()


def unsettle(model):
    """Random weights where training starts from zero, so that key points depend on the picture."""
    torch.manual_seed(1)
    with torch.no_grad():
        for head in model.keypoint_heads:
            head.layers[-1].weight.normal_(0, 0.2)
    return model


def test_output_shapes_and_ranges(model):
    output = model(crops())
    tokens = sum(h * w for h, w in TINY.spatial_shapes)
    assert output.keypoints.shape == (2, 17, 2)
    assert output.scores.shape == (2, 17)
    assert output.per_layer.shape == (3, 2, 17, 2)
    assert output.memory.shape == (2, tokens, 64)
    assert model.heatmaps(output.memory).shape == (2, 17, 32, 24)
    assert output.keypoints.min() >= 0 and output.keypoints.max() <= 1
    assert output.scores.min() >= 0 and output.scores.max() <= 1
    assert torch.equal(output.keypoints, output.per_layer[-1])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_and_runs_without_weights(preset):
    config = PRESETS[preset]
    with torch.device("meta"):
        output = TFPose(config)(torch.zeros(1, 3, config.input_size_wh[1], config.input_size_wh[0]))
    assert output.keypoints.shape == (1, config.num_keypoints, 2)
    assert output.memory.shape[1] == sum(h * w for h, w in config.spatial_shapes)


def test_equation_4_refines_in_logits(model):
    changed = unsettle(TFPose(TINY).eval())
    refined = changed(crops()).per_layer
    features = changed.project(changed.backbone((crops() - changed.mean) / changed.std))
    memory = changed.encode(features)
    query = changed.query_embed.expand(2, -1, -1)
    position = changed.query_pos.expand(2, -1, -1)
    y = changed.reference_logits.sigmoid().expand(2, -1, -1)
    for layer, head, expected in zip(changed.decoder, changed.keypoint_heads, refined, strict=True):
        query = layer(query, position, y, memory, TINY.spatial_shapes)
        y = torch.sigmoid(torch.logit(y) + head(query))
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)


def test_without_encoder_memory_is_f0_without_position():
    config = dataclasses.replace(TINY, num_encoder_layers=0)
    model = TFPose(config).eval()
    f0 = model.project(model.backbone((crops() - model.mean) / model.std))
    assert torch.equal(model(crops()).memory, f0)


def test_gradient_stops_between_layers_and_before_scores():
    model = unsettle(TFPose(TINY))
    output = model(crops())
    output.per_layer[-1].sum().backward(retain_graph=True)
    gradient = model.keypoint_heads[0].layers[0].weight.grad
    assert gradient is None or not gradient.any()
    model.zero_grad()
    output.scores.sum().backward()
    moved = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved == ["score_head.linear.weight", "score_head.linear.bias"]


def test_gradient_may_pass_between_layers_when_asked():
    model = unsettle(TFPose(dataclasses.replace(TINY, detach_reference_points=False)))
    model(crops()).per_layer[-1].sum().backward()
    assert model.keypoint_heads[0].layers[0].weight.grad.abs().sum() > 0


def test_coordinates_stay_fp32_under_autocast():
    seen = []

    def spy(value, reference_points, sampling_offsets, attention_logits, spatial_shapes):
        seen.append((value.dtype, reference_points.dtype, sampling_offsets.dtype))
        return get_sampler("grid_sample")(value, reference_points, sampling_offsets, attention_logits, spatial_shapes)

    with torch.autocast("cpu", torch.bfloat16):
        output = TFPose(TINY, sampler=spy).eval()(crops())
    assert set(seen) == {(torch.bfloat16, torch.float32, torch.float32)}
    assert output.keypoints.dtype == torch.float32


def test_every_parameter_learns():
    for config in (TINY, dataclasses.replace(TINY, num_encoder_layers=0)):
        model = unsettle(TFPose(config))
        output = model(crops())
        (output.per_layer.sum() + output.scores.sum() + model.heatmaps(output.memory).sum()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_normalisation_is_inside(model):
    gray = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1).expand(1, 3, 128, 96)
    zero = model.project(model.backbone(torch.zeros(1, 3, 128, 96)))
    torch.testing.assert_close(model.project(model.backbone((gray - model.mean) / model.std)), zero)


def test_a_callable_samples_and_is_not_stored(tmp_path, model):
    calls = []

    def constant(value, reference_points, sampling_offsets, attention_logits, spatial_shapes):
        calls.append(spatial_shapes)
        return torch.zeros(value.shape[0], sampling_offsets.shape[1], value.shape[2] * value.shape[3])

    custom = TFPose(TINY, sampler=constant).eval()
    custom(crops())
    assert custom.sampler_name == "constant"
    assert calls == [TINY.spatial_shapes] * 4
    save_checkpoint(tmp_path / "c.safetensors", custom)
    assert load_checkpoint(tmp_path / "c.safetensors").sampler_name == "grid_sample"


@pytest.mark.parametrize("sampler", ["gather", "tent"])
def test_samplers_give_the_same_key_points(sampler):
    reference = unsettle(TFPose(TINY).eval())
    other = TFPose(TINY, sampler).eval()
    other.load_state_dict(reference.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(crops()).keypoints, reference(crops()).keypoints, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "stages", "parameters"),
    [("resnet18", (2, 2, 2, 2), 11_176_512), ("resnet34", (3, 4, 6, 3), 21_284_672),
     ("resnet50", (3, 4, 6, 3), 23_508_032), ("resnet101", (3, 4, 23, 3), 42_500_160)],
)  # fmt: skip
def test_resnets_have_torchvisions_names_and_sizes(name, stages, parameters):
    """Sizes are torchvision's own totals less the 1000-way classifier."""
    with torch.device("meta"):
        state = ResNet(name).state_dict()
    learned = {k: v for k, v in state.items() if "running" not in k and "num_batches" not in k}
    assert sum(v.numel() for v in learned.values()) == parameters
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer4.0.downsample.1.bias"} <= set(state)
    assert tuple(len({k.split(".")[1] for k in state if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)) == stages


def test_paper_costs_within_one_and_a_half_percent(tmp_path, capsys):
    rows = paper_table()
    assert len({row["row"] for row in rows}) == len(rows) == 14
    worst = max(abs(row["ours"] / row["paper"] - 1) for row in rows)
    assert worst <= 0.015, rows
    assert main(["--preset", "tiny", "--json", str(tmp_path / "f.json")]) == 0
    assert json.loads((tmp_path / "f.json").read_text()) == [{"preset": "tiny", "ours": round(count_gmacs(TINY), 3)}]
    assert "tiny" in capsys.readouterr().out


def test_auxiliary_head_does_not_run_at_inference():
    assert count_gmacs(TINY) == count_gmacs(dataclasses.replace(TINY, heatmap_head=False))


def test_checkpoint_round_trip(tmp_path, model):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, model, {"data": "rendered", "epochs": 3})
    again = load_checkpoint(path)
    assert again.config == TINY and not again.training
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert read_provenance(path) == {"data": "rendered", "epochs": 3}
    assert path.stat().st_mode & 0o444 == 0o444
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_sampler_that_is_none_is_no_fault_of_the_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", TFPose(TINY))
    with pytest.raises(ValueError, match=r"^unknown sampler 'bilinear'; legal are"):
        load_checkpoint(tmp_path / "a.safetensors", "bilinear")


def test_checkpoint_in_fp16_loads_as_fp32(tmp_path):
    save_checkpoint(tmp_path / "h.safetensors", TFPose(TINY).half())
    assert load_checkpoint(tmp_path / "h.safetensors").query_embed.dtype == torch.float32


def test_checkpoint_errors(tmp_path, model):
    path = tmp_path / "c.safetensors"
    with pytest.raises(ValueError, match="no such checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(ValueError, match=r"not a readable \.safetensors"):
        load_checkpoint(path)
    save_checkpoint(path, model)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"not a readable \.safetensors"):
        load_checkpoint(path)
    artifact = tmp_path / "pose.onnx"
    artifact.write_bytes(b"an artifact")
    with pytest.raises(ValueError, match=r"pose\.onnx: is an artifact; a checkpoint, a \.safetensors file"):
        load_checkpoint(artifact)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a checkpoint of tfpose-edge"):
        load_checkpoint(path)
    save_file({"x": torch.zeros(1)}, path, {"format": "tfpose-edge/1", "config": TINY.to_json()})
    with pytest.raises(ValueError, match="does not fit its own configuration"):
        load_checkpoint(path)
    for config in ('{"n_heads": 0}', "[]", "{", '{"n_heads": "8"}', '{"levels": 5}', '{"levels": [[5]]}', "null"):
        save_file({"x": torch.zeros(1)}, path, {"format": "tfpose-edge/1", "config": config})
        with pytest.raises(ValueError, match="does not fit its own configuration"):
            load_checkpoint(path)


def test_a_checkpoint_needs_a_folder(tmp_path, model):
    with pytest.raises(ValueError, match="there is no folder"):
        save_checkpoint(tmp_path / "none" / "c.safetensors", model)
    with pytest.raises(ValueError, match="it is a folder"):
        save_checkpoint(tmp_path, model)


def test_costs_are_written_whole_or_refused_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tfpose_edge.flops.count_gmacs", lambda _: 1.0)
    assert main(["--preset", "tiny", "--json", str(tmp_path / "f.json")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as usage:
        main(["--preset", "tiny", "--json", str(tmp_path / "none" / "f.json")])
    out, err = capsys.readouterr()
    assert usage.value.code == 2 and "there is no folder" in err and not out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vgg"}, "backbone is 'vgg'; legal are resnet10, resnet18"),
        ({"input_size_wh": (100, 128)}, "multiples of 32"),
        ({"levels": (3, 4)}, "levels is"),
        ({"levels": (1, 2, 3, 4, 5)}, "stages 2..5"),
        ({"d_model": 100}, "d_model is 100"),
        ({"num_decoder_layers": 0}, "at least 1"),
        ({"num_encoder_layers": -1}, "num_encoder_layers is -1; legal are integers of at least 0"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_points": 0}, "n_points is 0"),
        ({"ffn_dim": 0}, "ffn_dim is 0"),
        ({"d_model": 0}, "d_model is 0"),
        ({"heatmap_channels": -1}, "heatmap_channels is -1"),
        ({"n_heads": 8.0}, "n_heads is 8.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"padding": float("inf")}, "padding is inf"),
        ({"padding": 0.9}, "padding is 0.9"),
        ({"input_size_wh": (96,)}, "input_size_wh is (96,)"),
        ({"input_size_wh": (96, 96, 96)}, "two positive multiples of 32"),
        ({"keypoint_names": "nose"}, "keypoint_names is 'nose'"),
        ({"keypoint_names": ("nose", 3)}, "a tuple of texts"),
        ({"keypoint_names": ("nose", "nose")}, "different names"),
        ({"backbone_width": 3}, "backbone_width is 3"),
    ],
)
def test_configuration_errors(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(TINY, **change)


def test_configuration_json():
    assert PoseConfig.from_json(TINY.to_json()) == TINY
    with pytest.raises(ValueError, match="unknown fields in the configuration: colour"):
        PoseConfig.from_json('{"colour": 1}')
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.d_model = 1


def test_positions():
    embedding = sine_embedding(4, 3, 32)
    assert embedding.shape == (12, 32)
    rows, columns = embedding.reshape(4, 3, 32)[..., :16], embedding.reshape(4, 3, 32)[..., 16:]
    assert torch.equal(rows[:, 0], rows[:, 2]) and torch.equal(columns[0], columns[3])
    assert not torch.equal(rows[0], rows[1])
    assert pixel_centres(((2, 4), (1, 1))).tolist()[0] == [0.125, 0.25]
    assert pixel_centres(((2, 4), (1, 1))).tolist()[-1] == [0.5, 0.5]
