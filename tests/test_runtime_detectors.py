"""Detectors: each family's files find painted rectangles where they are, and what does not fit is said."""

from __future__ import annotations

import re

import cv2
import numpy as np
import onnx
import pytest
from conftest import write_centroid_onnx
from detector_files import FORMATS, SIDE, write_detector
from onnx import TensorProto, helper

import runtime
from runtime.detections import Detections, check_detections
from runtime.detector_families import FAMILIES, decode_yolox, grid, recognise, suppress
from runtime.detectors import open_detector

RED, GREEN, BLUE = [20, 16, 44, 72], [60, 10, 80, 50], [88, 24, 112, 88]  # green is of another class


def picture(*without):
    """128 x 96 px, black, with three rectangles."""
    image = np.zeros((96, 128, 3), np.uint8)
    for channel, box in ((2, RED), (1, GREEN), (0, BLUE)):
        if box not in without:
            image[box[1] : box[3], box[0] : box[2], channel] = 255
    return image


@pytest.mark.parametrize("kind", FORMATS)
def test_every_family_is_recognised_and_finds_the_people(tmp_path, kind):
    detect = runtime.NetworkDetector(write_detector(tmp_path / f"{kind}.onnx", kind), threads=1)
    assert detect.family.name == kind.removesuffix("-91").removesuffix("-92")
    found = detect(picture())
    np.testing.assert_allclose(found.boxes_xyxy, [RED, BLUE], atol=2.1)  # one px of the input = 2 of the picture
    np.testing.assert_allclose(found.scores, [0.9, 0.8], atol=1e-3)  # the surest first
    assert len(detect(picture(RED, BLUE)).scores) == 0
    assert detect.family.name in str(detect) and "(64, 64) px" in str(detect)


@pytest.mark.parametrize("size_wh", [(640, 480), (200, 320), (64, 64), (37, 91)])
@pytest.mark.parametrize("kind", ["yolox", "yolo-end-to-end", "detr"])
def test_boxes_come_back_to_pictures_of_any_size(tmp_path, kind, size_wh):
    detect = runtime.NetworkDetector(write_detector(tmp_path / "d.onnx", kind), threads=1)
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    box = np.rint(np.array([0.25, 0.25, 0.75, 0.875]) * np.tile(size_wh, 2)).astype(int)
    image[box[1] : box[3], box[0] : box[2], 2] = 255
    np.testing.assert_allclose(detect(image).boxes_xyxy, [box], atol=1.1 * max(size_wh) / SIDE)


def test_openvino_finds_the_same(tmp_path):
    import openvino

    path = write_detector(tmp_path / "d.onnx", "yolox")
    openvino.save_model(openvino.convert_model(path), tmp_path / "d.xml", compress_to_fp16=False)
    first, second = (runtime.NetworkDetector(tmp_path / name, threads=1)(picture()) for name in ("d.onnx", "d.xml"))
    np.testing.assert_allclose(first.boxes_xyxy, second.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)


def test_wrong_preprocessing_is_seen_and_can_be_set(tmp_path):
    path = write_detector(tmp_path / "d.onnx", "yolo-end-to-end")
    mistaken = runtime.NetworkDetector(
        path, threads=1, preprocessing=runtime.Preprocessing("centre", "bgr", std=(255,) * 3)
    )
    np.testing.assert_allclose(mistaken(picture(RED)).boxes_xyxy, [BLUE], atol=2.1)
    np.testing.assert_allclose(mistaken(picture(RED)).scores, [0.9], atol=1e-3)  # taken for red
    with pytest.raises(runtime.InputError, match="legal are corner, centre, stretch"):
        runtime.Preprocessing("middle")
    with pytest.raises(runtime.InputError, match="legal are rgb, bgr"):
        runtime.Preprocessing(channels="gray")


@pytest.mark.parametrize("fit", ["corner", "centre", "stretch"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_preprocessing_is_what_it_says(fit, channels):
    image = np.full((30, 40, 3), (10, 20, 30), np.uint8)
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    batch, scale, offset = runtime.Preprocessing(fit, channels, mean, std).apply(image, (80, 80), "float32")
    assert batch.shape == (1, 3, 80, 80) and batch.flags.c_contiguous
    top = {"corner": 0, "centre": 10, "stretch": 0}[fit]
    bottom = {"corner": 60, "centre": 70, "stretch": 80}[fit]
    for channel, value in enumerate((30, 20, 10) if channels == "rgb" else (10, 20, 30)):
        np.testing.assert_allclose(batch[0, channel, top:bottom], (value - mean[channel]) / std[channel], rtol=1e-6)
        rest = np.delete(batch[0, channel], np.s_[top:bottom], axis=0)
        np.testing.assert_allclose(rest, (114 - mean[channel]) / std[channel], rtol=1e-6)
    np.testing.assert_allclose(scale, (2, 80 / 30) if fit == "stretch" else (2, 2))
    np.testing.assert_allclose(offset, (0, top))


def test_yolox_is_decoded_cell_by_cell():
    size_wh, rng = (64, 96), np.random.default_rng(0)
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(96 // s) for x in range(64 // s)]
    rows = rng.normal(0, 1, (len(cells), 7)).astype(np.float32)
    boxes, scores = decode_yolox([rows[None]], size_wh, 1)
    for (x, y, stride), row, box, score in zip(cells, rows.astype(float), boxes, scores, strict=True):
        center = ((row[0] + x) * stride, (row[1] + y) * stride)
        half = np.exp(row[2]) * stride / 2, np.exp(row[3]) * stride / 2
        expected = [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]]
        np.testing.assert_allclose(box, expected)
        assert score == pytest.approx(row[4] * row[6])
    with pytest.raises(runtime.InputError, match="no grids"):
        grid(size_wh, 100)


def test_suppression_keeps_the_surest_of_those_that_overlap():
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 9.5]])
    assert suppress(boxes, np.array([0.5, 0.9, 0.3, 0.8]), 0.6).tolist() == [1, 2]
    assert suppress(boxes, np.array([0.5, 0.9, 0.3, 0.8]), 0.99).tolist() == [1, 3, 0, 2]


def test_dynamic_inputs_take_the_size_asked_for(tmp_path):
    path = write_detector(tmp_path / "d.onnx", "rtmdet", "n", "side")
    detect = runtime.NetworkDetector(path, threads=1, input_size_wh=(SIDE, SIDE))
    np.testing.assert_allclose(detect(picture()).boxes_xyxy, [RED, BLUE], atol=2.1)
    with pytest.raises(runtime.ModelFileError, match="cannot run on float32"):
        runtime.NetworkDetector(path, threads=1)  # 640 x 640: this one is not as free as it says
    with pytest.raises(runtime.InputError, match=re.escape("is made for (64, 64)")):
        runtime.NetworkDetector(write_detector(tmp_path / "e.onnx", "rtmdet"), input_size_wh=(32, 32))


def test_thresholds_and_classes_can_be_set(tmp_path):
    path = write_detector(tmp_path / "d.onnx", "yolox")
    assert len(runtime.NetworkDetector(path, score_threshold=0.85)(picture()).scores) == 1
    other = runtime.NetworkDetector(path, person_class=1)(picture())
    np.testing.assert_allclose(other.boxes_xyxy, [GREEN], atol=2.1)
    twice = runtime.NetworkDetector(path, most_overlap=1.0)(picture())
    assert len(twice.scores) == 4  # nothing thinned out


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        ({"family": "ssd"}, runtime.InputError, "legal are yolox, yolox-decoded, rtmdet"),
        ({"family": "detr"}, runtime.ModelFileError, "are not those of detr"),
        ({"person_class": 7}, runtime.ModelFileError, "are not those of yolox"),
        ({"device": "tpu"}, runtime.BackendUnavailable, "legal are cpu"),
        ({"threads": 0}, runtime.InputError, "threads is 0"),
        ({"score_threshold": 40}, runtime.InputError, r"score_threshold is 40, legal are numbers in 0\.\.1"),
        ({"score_threshold": float("nan")}, runtime.InputError, "score_threshold is nan"),
        ({"score_threshold": "0.5"}, runtime.InputError, "score_threshold is '0.5'"),
        ({"most_overlap": -0.1}, runtime.InputError, "most_overlap is -0.1"),
        ({"person_class": -1}, runtime.InputError, "person_class is -1, legal are None and integers from 0 on"),
        ({"person_class": 0.5}, runtime.InputError, "person_class is 0.5"),
        ({"input_size_wh": 64}, runtime.InputError, "input_size_wh is 64, legal are None and"),
        ({"input_size_wh": (64, "64")}, runtime.InputError, "input_size_wh is '64'"),
        ({"preprocessing": "bgr"}, runtime.InputError, "preprocessing is 'bgr'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, values, error, named):
    with pytest.raises(error, match=named):
        runtime.NetworkDetector(write_detector(tmp_path / "d.onnx", "yolox"), **values)


def test_networks_that_are_no_detectors_are_refused(tmp_path, centroid_onnx):
    with pytest.raises(runtime.ModelFileError, match=r"\(1, 3, 2\), \(1, 3\)\. Known are yolox: \(1, cells"):
        runtime.NetworkDetector(centroid_onnx)
    with pytest.raises(runtime.ModelFileError, match="no such file"):
        runtime.NetworkDetector(tmp_path / "gone.onnx")
    with pytest.raises(runtime.ModelFileError, match=r"run as \.onnx and \.xml"):
        runtime.NetworkDetector(tmp_path / "d.pte")
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(runtime.ModelFileError, match="cannot load it"):
        runtime.NetworkDetector(tmp_path / "broken.onnx")
    flat = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])],
        "flat",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 10])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 10])],
    )
    onnx.save(helper.make_model(flat, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "f.onnx")
    with pytest.raises(runtime.ModelFileError, match=re.escape("a detector has one, (1, 3, H, W)")):
        runtime.NetworkDetector(tmp_path / "f.onnx")


@pytest.mark.parametrize(
    "found",
    [None, [], np.zeros((0, 4)), [[1, 2, 30, 40]], [[1, 2, 30, 40, 0.5]], Detections(np.ones((0, 4)), np.ones(0))],
)
def test_callables_may_return_boxes_with_and_without_scores(found):
    boxes, scores = open_detector(lambda image: found)(np.zeros((50, 60, 3), np.uint8))
    assert boxes.shape == (len(scores), 4) and boxes.dtype == np.float64
    assert boxes.tolist() in ([], [[1, 2, 30, 40]])


def test_boxes_are_sorted_cut_at_the_image_and_left_out_when_useless():
    rows = [[-5, -5, 20, 20, 0.1], [10, 10, 5, 5, 0.9], [100, 100, 120, 120, 0.8], [30, 20, 90, 70, 0.7]]
    boxes, scores = check_detections(rows, (60, 50))
    assert boxes.tolist() == [[30, 20, 60, 50], [0, 0, 20, 20]] and scores.tolist() == [0.7, 0.1]


@pytest.mark.parametrize("found", [[[1, 2, 3]], [[10**400, 2, 3, 4]], [[1, 2, 30, float("nan")]], "boxes", [["a"] * 4]])
def test_callables_that_return_something_else_are_named(found):
    with pytest.raises(runtime.InputError, match="the detector gave"):
        open_detector(lambda image: found)(np.zeros((50, 60, 3), np.uint8))


@pytest.mark.parametrize("given", ["", 3, ["d.onnx"], True, np.zeros((2, 4))])
def test_what_a_detector_may_be_is_said(centroid_onnx, given):
    with pytest.raises(runtime.InputError, match="legal are None, a file"):
        runtime.Pose(centroid_onnx, detector=given)


def test_hog_must_be_asked_for_and_be_there(centroid_onnx, monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)
    with pytest.raises(runtime.BackendUnavailable, match=r"opencv-python<5") as caught:
        runtime.Pose(centroid_onnx, detector="hog")
    assert caught.value.exit_code == 5 and cv2.__version__ in str(caught.value)


def test_hog_boxes_become_corners(monkeypatch):
    class Descriptor:
        """What OpenCV 4 gives: corner and size, and the margin of each, here one too small."""

        @staticmethod
        def getDefaultPeopleDetector():
            return "people"

        def setSVMDetector(self, detector):
            assert detector == "people"

        def detectMultiScale(self, image, winStride, padding, scale):
            return np.array([[10, 20, 30, 40], [0, 0, 20, 20]]), np.array([1.5, 0.1])

    monkeypatch.setattr(cv2, "HOGDescriptor", Descriptor, raising=False)
    boxes, scores = open_detector("hog")(np.zeros((100, 100, 3), np.uint8))
    assert boxes.tolist() == [[10, 20, 40, 60]] and scores.tolist() == [1.5]


def test_a_call_without_boxes_asks_the_detector(tmp_path):
    image = picture(GREEN)
    path = write_detector(tmp_path / "d.onnx", "yolox")
    pose = runtime.Pose(write_centroid_onnx(tmp_path / "m" / "pose.onnx", batch=2), threads=1, detector=path)
    result = pose(image)
    np.testing.assert_allclose(result.boxes_xyxy, [RED, BLUE], atol=2.1)
    np.testing.assert_allclose(result.keypoints_xy[0, 0], [32, 44], atol=1)  # the middle of the red one
    np.testing.assert_allclose(result.keypoints_xy[1, 2], [100, 56], atol=1)
    assert list(result.timing_ms) == ["detect", "crop", "inference", "decode"] and result.ids is None
    assert len(pose(picture(RED, BLUE))) == 0
    assert len(pose(image, [[0, 0, 50, 50]])) == 1  # boxes that are given are taken


def test_a_detector_of_another_engine_runs_on_the_cpu_where_it_lacks_the_device(tmp_path, caplog):
    path = write_detector(tmp_path / "d.onnx", "yolox")
    assert len(open_detector(path, "gpu", 1)(picture()).boxes_xyxy) == 2
    said = f"detector {path} runs on cpu: onnxruntime has cpu, cuda, coreml, no gpu"
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", said)]
    caplog.clear()
    open_detector(path, "cpu", 1)
    assert not caplog.records
    with pytest.raises(runtime.BackendUnavailable, match="has no device 'gpu', legal are cpu, cuda, coreml"):
        runtime.NetworkDetector(path, "gpu")


def test_the_names_in_the_help_are_those_of_the_table():
    assert all(f'"{family.name}"' in runtime.NetworkDetector.__doc__ for family in FAMILIES)


def test_mmdeploy_s_yolox_is_told_by_its_name(tmp_path):
    by_name = runtime.NetworkDetector(write_detector(tmp_path / "YOLOX_s_mm.onnx", "yolox-mmdeploy"), threads=1)
    path = write_detector(tmp_path / "people.onnx", "yolox-mmdeploy")
    named = runtime.NetworkDetector(path, threads=1, family="yolox-mmdeploy")
    assert by_name.family == named.family and by_name.preprocessing.std == (1, 1, 1)
    assert runtime.NetworkDetector(path, threads=1).family.name == "rtmdet"


def test_a_network_that_asks_for_the_size_is_told_it(tmp_path):
    """The boxes are where they are only if width and height come in this order."""
    import openvino

    path = write_detector(tmp_path / "d.onnx", "rtdetr")
    openvino.save_model(openvino.convert_model(path), tmp_path / "d.xml", compress_to_fp16=False)
    for name in ("d.onnx", "d.xml"):
        detect = runtime.NetworkDetector(tmp_path / name, threads=1)
        assert [one.dtype for one in detect.network.inputs] == ["float32", "int64"]
        np.testing.assert_allclose(detect(picture()).boxes_xyxy, [RED, BLUE], atol=2.1)


def test_boxes_in_px_are_no_detr_s():
    """YOLO-NAS gives (1, N, 4) and (1, N, C) as well, in px."""
    logits = np.zeros((1, 30, 80), np.float32)
    assert recognise([logits, np.full((1, 30, 4), 0.5, np.float32)], (640, 640)).name == "detr"
    assert recognise([logits, np.full((1, 30, 4), 320, np.float32)], (640, 640)) is None


@pytest.mark.parametrize(
    "values", [{"std": (0, 0, 0)}, {"mean": (1, 2)}, {"mean": 0}, {"std": "abc"}, {"std": (1, 1, float("nan"))}]
)
def test_preprocessing_that_cannot_be_done_is_named(values):
    with pytest.raises(runtime.InputError, match=f"Preprocessing.{next(iter(values))} is"):
        runtime.Preprocessing(**values)
