"""Learning from a teacher: its losses by hand, what is refused, and a resumed run that equals a straight one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from runtime.errors import InputError
from runtime.skeleton import COCO_17, LSP_14
from tfpose_edge import PRESETS, PoseOutput, TFPose, load_checkpoint, read_provenance, save_checkpoint
from training import criterion, networks
from training.options import Options
from training.run import RunFolder
from training.teacher import Teacher, Teaching
from training.train import main, train

TINY = PRESETS["tiny"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of another crop size and another shape than `tiny`."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("teacher") / "large.safetensors"
    save_checkpoint(path, TFPose(dataclasses.replace(TINY, input_size_wh=(128, 160), num_decoder_layers=1)))
    return path


def test_key_points_count_by_the_teachers_scores():
    layers = torch.tensor([[[[0.4, 0.5], [0.0, 0.0]]], [[[0.5, 0.7], [0.9, 0.9]]]])  # (N_D 2, B 1, K 2, 2)
    teaching = Teaching(torch.tensor([[[0.5, 0.5], [0.4, 0.4]]]), torch.tensor([[1.0, 0.5]]), None)
    terms = criterion.teacher_losses(PoseOutput(layers[-1], torch.zeros(1, 2), layers, torch.zeros(1)), None, teaching)
    first, second = 0.1 + 0.5 * 0.8, 0.2 + 0.5 * 1.0
    assert terms.keys() == {"loss_teacher_keypoints"}
    assert float(terms["loss_teacher_keypoints"]) == pytest.approx((first + second) / 4)


def test_heat_maps_are_compared_at_the_students_size():
    layers = torch.zeros(1, 1, 1, 2)
    output = PoseOutput(layers[-1], torch.zeros(1, 1), layers, torch.zeros(1))
    teaching = Teaching(torch.zeros(1, 1, 2), torch.ones(1, 1), torch.full((1, 1, 16, 12), 0.5))
    terms = criterion.teacher_losses(output, torch.full((1, 1, 8, 6), 0.2), teaching)
    assert float(terms["loss_teacher_heatmaps"]) == pytest.approx(0.09)
    assert set(terms) <= set(criterion.TEACHER_WEIGHTS)


def test_a_teacher_has_nothing_to_say_to_itself(tmp_path):
    torch.manual_seed(0)
    student = TFPose(dataclasses.replace(TINY, num_decoder_layers=1)).eval()
    save_checkpoint(tmp_path / "same.safetensors", student)
    crops = torch.rand(2, 3, 128, 96) * 255
    teaching = Teacher(tmp_path / "same.safetensors", COCO_17, CPU)(crops)
    with torch.no_grad():
        output = student(crops)
        terms = criterion.teacher_losses(output, student.heatmaps(output.memory), teaching)
    assert all(float(term) == pytest.approx(0, abs=1e-7) for term in terms.values())


def test_a_teacher_sees_crops_of_its_own_size_and_learns_nothing(checkpoint):
    teacher = Teacher(checkpoint, COCO_17, CPU)
    ramp = torch.linspace(0, 255, 96).expand(1, 3, 128, 96)
    teaching = teacher(ramp)
    shown = torch.nn.functional.interpolate(ramp, (160, 128), mode="bilinear")
    assert torch.allclose(teaching.keypoints, load_checkpoint(checkpoint)(shown).keypoints, atol=1e-3)
    assert teaching.heatmaps.shape == (1, 17, 40, 32) and not teaching.heatmaps.requires_grad


def test_what_is_no_teacher_is_refused(tmp_path, checkpoint, capsys):
    with pytest.raises(InputError, match="other key points"):
        Teacher(checkpoint, LSP_14, CPU)
    networks.save(tmp_path / "rival.safetensors", networks.build("deeppose", TINY))
    with pytest.raises(InputError, match=r"--teacher: .*not a checkpoint of tfpose-edge"):
        Teacher(tmp_path / "rival.safetensors", COCO_17, CPU)
    assert main(["--teacher", str(tmp_path / "none.safetensors"), "--output", str(tmp_path / "run")]) == 4
    assert "no such checkpoint" in capsys.readouterr().err


def test_runs_with_a_teacher_resume_exactly(tmp_path, checkpoint, monkeypatch):
    base = Options(
        teacher=checkpoint, rendered=8, batch_size=4, epochs=2, workers=0, threads=1, output=tmp_path / "whole"
    )
    train(base)
    parts = dataclasses.replace(base, output=tmp_path / "parts")
    stops = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr("training.session.Session._must_stop", lambda self: next(stops, True))
        train(parts)
    with pytest.raises(InputError, match="teacher was"):
        train(dataclasses.replace(parts, teacher=None, resume=True))
    train(dataclasses.replace(parts, resume=True))
    whole, resumed = (load_checkpoint(tmp_path / n / "last.safetensors").state_dict() for n in ("whole", "parts"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    epoch = next(line for line in RunFolder(tmp_path / "whole").read_log() if line["kind"] == "epoch")
    assert epoch["loss"] > 0 and read_provenance(tmp_path / "whole" / "last.safetensors")["teacher"] == checkpoint.name
