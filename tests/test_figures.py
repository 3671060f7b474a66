"""The paper's figures: their numbers against slow ones and networks set by hand, their pictures, their command."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from drawing import TINY, write_checkpoint, write_run
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import COCO_17, MPII_16, flip_order, flip_pairs, limbs
from tfpose_edge import load_checkpoint
from training.data.reading import load_persons
from training.data.spec import DataSpec
from training.figures.__main__ import main
from training.figures.convergence import draw_convergence, read_course
from training.figures.examples import best_middle_worst, rank
from training.figures.observation import Observer
from training.figures.page import CannotDraw, short_name
from training.figures.patterns import numbers, share, strongest, with_average
from training.figures.people import People, spread
from training.figures.query_graphs import place_names
from training.figures.sampling import look
from training.figures.survey import Survey, take_survey
from training.predictor import CheckpointPredictor
from training.run import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.safetensors")


@pytest.fixture(scope="module")
def observer(checkpoint):
    return Observer(checkpoint)


@pytest.fixture(scope="module")
def people(data):
    return People(data, TINY)


def test_watching_changes_nothing(checkpoint, observer, people):
    [batch] = people.batches(3)
    seen = observer(batch.crops)
    with torch.inference_mode():
        plain = load_checkpoint(checkpoint)(batch.crops.float())
    np.testing.assert_array_equal(seen.keypoints, plain.keypoints.double().numpy())
    logits = load_checkpoint(checkpoint).reference_logits.detach().double().numpy()
    np.testing.assert_allclose(seen.reference_points[0], np.broadcast_to(1 / (1 + np.exp(-logits)), (3, 17, 2)))
    np.testing.assert_array_equal(seen.reference_points[1:], plain.per_layer[:-1].double().numpy())


def test_weights_are_parts_of_one(observer, people):
    seen = observer(next(people.batches(3)).crops)
    assert seen.query_attention.shape == (3, 3, 4, 17, 17) and seen.weights.shape == (3, 3, 17, 4, 3, 4)
    np.testing.assert_allclose(seen.query_attention.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(seen.weights.sum((-2, -1)), 1, atol=1e-6)
    assert seen.query_attention.std() > 0.001 and seen.weights.std() > 0.001


def test_samples_lie_at_reference_times_size_plus_offset(observer, people):
    """Offsets are taken at the layer itself, and compared in px of each level, point by point."""
    asked = []
    hooks = [
        layer.attention.register_forward_hook(lambda module, inputs, _: asked.append((module, *inputs[:2])))
        for layer in observer.model.decoder
    ]
    seen = observer(next(people.batches(2)).crops)
    for hook in hooks:
        hook.remove()
    for layer, (module, query, reference) in enumerate(asked):
        with torch.inference_mode():
            offsets = module.offsets_and_logits(query)[0].numpy()
        for level, (height, width) in enumerate(TINY.spatial_shapes):
            for head in range(TINY.n_heads):
                for point in range(TINY.n_points):
                    pixel = seen.positions[layer, :, :, head, level, point] * (width, height)
                    expected = reference.numpy() * (width, height) + offsets[:, :, head, level * TINY.n_points + point]
                    np.testing.assert_allclose(pixel, expected, atol=1e-4)
    assert np.ptp(seen.positions) > 0.2


def test_survey_is_the_mean_of_everybody(checkpoint, observer, people, data):
    survey = take_survey(observer, people, batch_size=2)
    alone = [observer(people.show(place).crops) for place in range(3)]
    mean = np.mean([seen.query_attention[:, 0].mean(1) for seen in alone], axis=0)
    np.testing.assert_allclose(survey.query_attention, mean, atol=1e-6)
    np.testing.assert_allclose(survey.query_attention.sum(-1), 1, atol=1e-6)
    predictor = CheckpointPredictor(checkpoint)
    for person, keypoints_xy in zip(survey.persons, survey.keypoints_xy, strict=True):
        expected, _ = predictor(cv2.imread(str(person.image_path)), person.box_xyxy[None])
        np.testing.assert_allclose(keypoints_xy, expected[0], atol=1e-3)


def test_printed_crops_are_the_network_s(people):
    shown = people.show(1)
    small = cv2.resize(shown.image, TINY.input_size_wh, interpolation=cv2.INTER_AREA)
    crop = shown.crops[0].permute(1, 2, 0).numpy()
    inside = np.all((shown.truth > 0.1) & (shown.truth < 0.9), axis=-1) & shown.labelled
    assert shown.image.shape == (512, 384, 3) and inside.sum() > 8
    columns, rows = (shown.truth[inside] * TINY.input_size_wh).astype(int).T
    difference = np.abs(small.astype(float) - crop)[rows, columns].mean()
    moved = np.abs(small.astype(float) - np.roll(crop, 4, axis=1))[rows, columns].mean()
    assert difference < 8 and difference < moved / 2


def by_hand(partner):
    """Sets one decoder layer's only head so that query i looks at query partner[i]."""

    def change(model):
        attention = model.decoder[0].query_attention
        model.query_embed.zero_()
        model.query_pos.copy_(torch.eye(17, 64))
        for projection in (attention.q_proj, attention.k_proj):
            projection.bias.zero_()
        attention.k_proj.weight.copy_(10 * torch.eye(64))
        attention.q_proj.weight.copy_(10 * torch.eye(64))
        attention.q_proj.weight[:17, :17] = 10 * torch.eye(17)[:, partner]

    return change


def test_a_network_that_looks_at_the_other_side_shows_it(tmp_path, data):
    config = dataclasses.replace(TINY, n_heads=1, num_decoder_layers=1)
    path = write_checkpoint(tmp_path / "mirror.safetensors", config, by_hand(flip_order(COCO_17)))
    arguments = [str(path), "--data", data, "--output", str(tmp_path), "--json", str(tmp_path / "numbers.json")]
    assert main(["8", *arguments, "--edges", "8"]) == 0
    content = json.loads((tmp_path / "numbers.json").read_text())
    assert content["names"] == list(COCO_17) and content["persons"] == 3 and list(content["attention"]) == ["layer 1"]
    layer = content["attention"]["layer 1"]
    for row, partner in enumerate(flip_order(COCO_17)):
        assert layer["attention"][row][partner] > 0.99
    assert layer["patterns"]["symmetric"]["share"] > 0.99
    assert layer["patterns"]["symmetric"]["uniform"] == pytest.approx(1 / 17)
    found = {tuple(pair["between"]) for pair in layer["strongest"]}
    assert found == {(COCO_17[a], COCO_17[b]) for a, b in flip_pairs(COCO_17)}


def test_samples_of_a_network_set_by_hand(tmp_path, people):
    def change(model):
        attention = model.decoder[-1].attention
        for part in (attention.sampling_offsets, attention.attention_weights):
            part.weight.zero_()
        attention.sampling_offsets.bias.copy_(torch.tensor([3.0, -2.0]).repeat(4 * 3 * 4))
        attention.attention_weights.bias.copy_(torch.tensor([0.0] * 4 + [30.0] * 4 + [0.0] * 4).repeat(4))

    observer = Observer(write_checkpoint(tmp_path / "model.safetensors", change=change))
    shown = people.show(0)
    looks = [look(shown, observer(shown.crops), 2, 5, level) for level in range(3)]
    assert [one.share for one in looks] == pytest.approx([0, 1, 0], abs=1e-9)
    for one, (height, width) in zip(looks, TINY.spatial_shapes, strict=True):
        expected = one.marks["reference point: where the layer starts to look"] + (3 / width, -2 / height)
        np.testing.assert_allclose(one.positions, np.broadcast_to(expected, (16, 2)), atol=1e-6)


def test_shares_and_strongest_pairs():
    uniform = np.full((17, 17), 1 / 17)
    for pairs in (flip_pairs(COCO_17), limbs(COCO_17)):
        part, expected = share(uniform, pairs)
        assert part == pytest.approx(expected)
    attention = np.array([[0.1, 0.5, 0.4], [0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])
    assert strongest(attention, 2) == [(0, 2, 0.7), (0, 1, 0.35)]
    assert share(attention, [(0, 1)]) == pytest.approx((0.35, 1 / 3))
    assert list(with_average(np.stack([attention, uniform[:3, :3]]))) == ["layer 1", "layer 2", "average of all layers"]
    assert list(numbers(attention[None], ("a", "b", "c"), 2)["attention"]["layer 1"]["patterns"]) == []


def test_best_middle_worst(data):
    persons = load_persons(DataSpec.parse(data)).persons * 3
    shifts = np.array([4, 0, 9, 2, 30, 1, 15, 3, 60.0])
    survey = Survey(persons, np.stack([p.keypoints_xy + s for p, s in zip(persons, shifts, strict=True)]), None)
    for by, best in (("oks", 100), ("pck", 100)):
        ranked = rank(survey, COCO_17, by)
        values = [example.value for example in ranked]
        assert values == sorted(values) and values[-1] == pytest.approx(best) and values[0] < 25
    rows = best_middle_worst(rank(survey, COCO_17, "oks"), 2)
    moved = {
        what: [round(float(np.abs(e.keypoints_xy - e.person.keypoints_xy)[0, 0])) for e in examples]
        for what, examples in rows.items()
    }
    assert moved["best"][0] == 0 and moved["worst"] == [60, 30] and not set(moved["middle"]) & {0, 30, 60}
    assert len(best_middle_worst(ranked, 9)["best"]) == 3
    with pytest.raises(CannotDraw, match="need 3 persons"):
        best_middle_worst(ranked[:2], 1)


def test_names_and_places():
    assert [short_name(n) for n in ("left_hip", "right_ear", "head_top")] == ["L hip", "R ear", "head top"]
    places = place_names((*MPII_16, "left_thumb", "tail"))
    assert len(set(places.values())) == 18
    assert places["left_knee"][0] == -places["right_knee"][0] > 0  # it faces us
    assert spread(10, 3).tolist() == [0, 4, 9] and spread(2, 5).tolist() == [0, 1]


def test_courses_say_whether_there_was_an_auxiliary_loss(tmp_path):
    assert read_course(write_run(tmp_path / "a", True)).label == "a, with auxiliary loss"
    course = read_course(write_run(tmp_path / "b", False))
    assert course.label == "b, without auxiliary loss" and len(course.epochs) == 3 and len(course.steps) == 19
    assert read_course(tmp_path / "a", "mine").label == "mine"
    (tmp_path / "b" / "metrics.jsonl").write_text("{}\n")
    for folder, message in ((tmp_path, "no run folder"), (tmp_path / "b", "not the log of a run")):
        with pytest.raises(InputError, match=message):
            read_course(folder)


def test_runs_without_that_loss_or_validation_have_their_place_in_the_legend(tmp_path):
    run = RunFolder(write_run(tmp_path / "a", True))
    lines = [{k: v for k, v in line.items() if k not in ("loss_keypoints", "oks")} for line in run.read_log()]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, folders in (("both", "ab"), ("other", "b")):
        draw_convergence(tmp_path / f"{name}.png", [read_course(tmp_path / folder) for folder in folders])
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 10
