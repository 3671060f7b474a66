"""`Pose` gives true numbers: coloured dots come back where they were painted."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import NAMES, dots_image, write_centroid_onnx

import runtime
import runtime.pose
from runtime.errors import InputError, ModelFileError

DOTS = np.array([[150.0, 90.5], [120.25, 130], [175, 140.75]])  # red, green, blue
BOX = [100.0, 70, 200, 170]
ENGINES = ["onnxruntime", "openvino", "executorch"]


class FakeBackend:
    """Counts its calls; says the middle of the crop, or what it is told to."""

    def __init__(self, keypoints=None, scores=None):
        self.calls: list[np.ndarray] = []
        self.keypoints, self.scores, self.is_open = keypoints, scores, True

    def infer(self, crops):
        self.calls.append(crops.copy())
        shape = (len(crops), len(NAMES))
        keypoints = np.full((*shape, 2), 0.5, np.float32) if self.keypoints is None else self.keypoints
        return keypoints, np.ones(shape, np.float32) if self.scores is None else self.scores

    def close(self):
        self.is_open = False


@pytest.fixture
def fake_pose(monkeypatch, tmp_path):
    """Builds a Pose around a fake back end; values go into the sidecar."""

    def build(backend=None, **values):
        monkeypatch.setattr(runtime.pose, "open_backend", lambda *args: backend or FakeBackend())
        return runtime.Pose(write_centroid_onnx(tmp_path / "model" / "pose.onnx", **values))

    return build


@pytest.mark.parametrize("engine", ENGINES)
def test_dots_are_found_in_image_pixels(centroid_artifacts, engine):
    with runtime.Pose(centroid_artifacts[engine], threads=1) as pose:
        result = pose(dots_image((320, 240), DOTS), [BOX])
    assert result.keypoints_xy.shape == (1, 3, 2) and result.keypoints_xy.dtype == np.float32
    np.testing.assert_allclose(result.keypoints_xy[0], DOTS, atol=0.1)  # red, green, blue in this order: RGB crops
    assert result.names == tuple(NAMES) and result.image_size_wh == (320, 240)
    assert (result.scores > 0.8).all() and result.scores.shape == (1, 3)


def test_whole_image_is_the_default_box(centroid_onnx):
    pose, image = runtime.Pose(centroid_onnx), dots_image((320, 240), DOTS, radius=20)
    result, named = pose(image), pose(image, [[0, 0, 320, 240]])
    np.testing.assert_array_equal(result.boxes_xyxy, [[0, 0, 320, 240]])
    np.testing.assert_array_equal(result.keypoints_xy, named.keypoints_xy)
    np.testing.assert_allclose(result.keypoints_xy[0], DOTS, atol=0.3)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_boxes_are_answered_in_order_whatever_the_batch(tmp_path, batch):
    pose = runtime.Pose(write_centroid_onnx(tmp_path / "m" / "pose.onnx", batch=batch))
    image = dots_image((320, 240), DOTS)
    boxes = [BOX, [90, 60, 210, 180], [110, 80, 190, 150], [80, 50, 220, 190], [95, 75, 205, 165]]
    together = pose(image, boxes)
    for row, box in enumerate(boxes):
        np.testing.assert_allclose(together.keypoints_xy[row], pose(image, [box]).keypoints_xy[0], atol=1e-4)
    np.testing.assert_allclose(together.keypoints_xy, np.broadcast_to(DOTS, (5, 3, 2)), atol=0.1)


@pytest.mark.parametrize(("num_boxes", "runs"), [(0, 0), (1, 1), (3, 1), (4, 2), (6, 2)])
def test_batches_are_filled_with_zeros_and_cut(fake_pose, num_boxes, runs):
    backend = FakeBackend()
    pose = fake_pose(backend, batch=3)
    result = pose(np.full((100, 100, 3), 200, np.uint8), np.tile([10.0, 10, 90, 90], (num_boxes, 1)))
    assert len(backend.calls) == runs and len(result) == num_boxes
    crops = np.concatenate(backend.calls) if runs else np.zeros((0, 3, 64, 48))
    assert (crops[:num_boxes].max(axis=(1, 2, 3)) == 200).all() and not crops[num_boxes:].any()


def test_no_boxes_give_an_empty_result_without_running(fake_pose):
    backend = FakeBackend()
    result = fake_pose(backend)(np.zeros((10, 10, 3), np.uint8), np.zeros((0, 4)))
    assert not backend.calls and result.keypoints_xy.shape == (0, 3, 2) and result.scores.shape == (0, 3)
    assert json.loads(result.to_json())["persons"] == []
    np.testing.assert_array_equal(result.draw(np.zeros((10, 10, 3), np.uint8)), 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_crops_are_contiguous_rgb_of_the_sidecars_type(fake_pose, dtype):
    backend = FakeBackend()
    fake_pose(backend, input_dtype=dtype)(np.full((50, 60, 3), (10, 20, 30), np.uint8), [[20, 20, 40, 40]])
    crops = backend.calls[0]
    assert crops.shape == (1, 3, 64, 48) and crops.dtype == dtype and crops.flags.c_contiguous
    np.testing.assert_array_equal(crops[0, :, 32, 24], [30, 20, 10])


def test_padding_comes_from_the_sidecar(fake_pose):
    image = np.zeros((100, 100, 3), np.uint8)
    image[30:70, 35:65] = 255  # exactly the box, which has the crop's aspect
    for padding, share in ((1.0, 1.0), (2.0, 0.25)):
        backend = FakeBackend()
        fake_pose(backend, padding=padding)(image, [[35, 30, 65, 70]])
        assert backend.calls[0].mean() / 255 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    "image",
    [np.zeros((60, 80), np.uint8), np.zeros((60, 80, 4), np.uint8), np.zeros((160, 120, 3), np.uint16)[::2, ::2]],
    ids=["gray", "bgra", "uint16 strided"],
)
def test_images_of_other_kinds_are_answered(centroid_onnx, image):
    assert runtime.Pose(centroid_onnx)(image).keypoints_xy.shape == (1, 3, 2)


@pytest.mark.parametrize("box", [[np.nan, 0, 1, 1], [50, 50, 10, 10], [500, 500, 600, 600]])
def test_bad_boxes_and_images_are_input_errors_with_exit_code_4(centroid_onnx, box):
    pose = runtime.Pose(centroid_onnx)
    with pytest.raises(InputError, match=r"boxes_xyxy\[0\]") as caught:
        pose(np.zeros((60, 80, 3), np.uint8), [box])
    assert caught.value.exit_code == 4 and isinstance(caught.value, ValueError)
    with pytest.raises(InputError, match="image_bgr"):
        pose(np.zeros((0, 80, 3), np.uint8))


def test_the_callers_arrays_are_left_alone(centroid_onnx):
    image, boxes = dots_image((320, 240), DOTS), np.array([BOX])
    copies = image.copy(), boxes.copy()
    result = runtime.Pose(centroid_onnx)(image, boxes)
    result.draw(image)
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(boxes, copies[1])


def test_calls_are_stateless_and_safe_across_threads(centroid_onnx):
    pose = runtime.Pose(centroid_onnx, threads=1)
    images = [dots_image((320, 240), DOTS + shift) for shift in range(4)]
    expected = [pose(image, [BOX]).keypoints_xy for image in images]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(30):
            if not np.array_equal(pose(images[index], [BOX]).keypoints_xy, expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize(
    ("keypoints", "scores", "named"),
    [
        (np.zeros((1, 4, 2), np.float32), None, r"\(1, 4, 2\)"),
        (None, np.zeros((1, 3, 1), np.float32), r"\(1, 3, 1\)"),
        (np.full((1, 3, 2), np.nan, np.float32), None, "not finite"),
    ],
)
def test_outputs_that_contradict_the_sidecar_are_refused(fake_pose, keypoints, scores, named):
    with pytest.raises(ModelFileError, match=named):
        fake_pose(FakeBackend(keypoints, scores))(np.zeros((60, 80, 3), np.uint8))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sidecar_with_another_crop_size_than_the_model_is_an_error(
    centroid_artifacts, tmp_path, edit_sidecar, engine
):
    for path in centroid_artifacts[engine].parent.iterdir():
        shutil.copy(path, tmp_path)
    artifact = tmp_path / centroid_artifacts[engine].name
    edit_sidecar(artifact, input_size_wh=[64, 48])
    with pytest.raises(ModelFileError, match=rf"{engine} cannot run it on .*48, 64"):
        runtime.Pose(artifact)(np.zeros((60, 80, 3), np.uint8))


def test_leaving_the_context_closes_the_engine(fake_pose):
    backend = FakeBackend()
    with fake_pose(backend) as pose:
        assert backend.is_open
    assert not backend.is_open
    pose.close()
    with pytest.raises(InputError, match="closed"):
        pose(np.zeros((60, 80, 3), np.uint8))


def test_a_changed_artifact_never_reaches_the_engine(centroid_onnx, monkeypatch):
    centroid_onnx.write_bytes(centroid_onnx.read_bytes() + b"\0")
    monkeypatch.setattr(runtime.pose, "open_backend", lambda *args: pytest.fail("the engine saw it"))
    with pytest.raises(ModelFileError, match="sha256"):
        runtime.Pose(centroid_onnx)


@pytest.mark.parametrize(("name", "named"), [("nothing.onnx", "no such artifact"), ("model.zip", r"\.zip")])
def test_a_wrong_artifact_is_named(tmp_path, name, named):
    (tmp_path / "model.zip").write_bytes(b"PK")
    with pytest.raises(ModelFileError, match=named) as caught:
        runtime.Pose(str(tmp_path / name))
    assert caught.value.exit_code == 3


def test_the_packaged_model_is_the_first_that_exists(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime.pose, "MODELS_DIR", tmp_path)
    with pytest.raises(ModelFileError, match="no packaged model"):
        runtime.Pose()
    write_centroid_onnx(tmp_path / "tiny.onnx")
    assert runtime.Pose().path.name == "tiny.onnx"
    write_centroid_onnx(tmp_path / "edge-s.onnx")
    assert runtime.Pose().path.name == "edge-s.onnx"


def test_the_packaged_model_answers():
    pose = runtime.Pose()
    result = pose(np.zeros((480, 640, 3), np.uint8))
    assert result.keypoints_xy.shape == (1, len(pose.sidecar.keypoint_names), 2)


def test_json_holds_exactly_the_arrays(centroid_onnx):
    result = runtime.Pose(centroid_onnx)(dots_image((320, 240), DOTS), [BOX])
    assert "\n" not in result.to_json()
    person = json.loads(result.to_json())["persons"][0]
    np.testing.assert_array_equal(np.float32(person["keypoints_xy"]), result.keypoints_xy[0])
    np.testing.assert_array_equal(np.float32(person["scores"]), result.scores[0])
    assert set(result.timing_ms) == {"crop", "inference", "decode"} and min(result.timing_ms.values()) >= 0


def test_video_follows_the_person(centroid_onnx, moving_dots):
    clip, truth = moving_dots
    frames = list(runtime.Pose(centroid_onnx, smoothing=False).video(clip))
    assert [frame.index for frame in frames] == list(range(len(truth)))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(len(truth)) / 10, atol=0.02)
    for frame, dots in zip(frames, truth, strict=True):
        x1, y1, x2, y2 = frame.result.boxes_xyxy[0]
        assert (x2 - x1) * (y2 - y1) < 0.5 * 320 * 240  # closer than the whole frame
        assert (
            np.abs(frame.result.keypoints_xy[0] - dots).max() < 3
        )  # and still on the person (JPEG mixes the channels a little)


def test_video_reports_a_missing_source_at_once(centroid_onnx):
    with pytest.raises(InputError, match=r"gone\.mp4"):
        runtime.Pose(centroid_onnx).video(Path("gone.mp4"))


def test_what_is_no_path_is_named():
    with pytest.raises(runtime.InputError, match="model is 5, legal are None and the path"):
        runtime.Pose(5)


def test_find_is_stateless_and_answers_the_pictures_of_a_folder(centroid_onnx, tmp_path):
    images = [dots_image((320, 240), np.array([[150.0, 90], [120, 130], [175, 140]]) + s, radius=12) for s in (0, 60)]
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    with runtime.Pose(centroid_onnx, threads=1) as pose:
        found = [pose.find(image) for image in images]
        assert [len(one) for one in found] == [1, 1]
        again = pose.find(images[0])
        np.testing.assert_array_equal(again.keypoints_xy, found[0].keypoints_xy)
        assert (found[1].boxes_xyxy != found[0].boxes_xyxy).any()  # where the dots are
        for frame, one in zip(pose.video(tmp_path), found, strict=True):
            np.testing.assert_array_equal(frame.result.keypoints_xy, one.keypoints_xy)
    boxes = [[90, 60, 250, 200]]
    with runtime.Pose(centroid_onnx, threads=1, detector=lambda image: boxes) as pose:
        np.testing.assert_array_equal(pose.find(images[0]).boxes_xyxy, boxes)


def test_packaged_models_have_names():
    with runtime.Pose("tiny", threads=1) as pose:
        assert pose.path == runtime.pose.MODELS_DIR / "tiny.onnx"
    with pytest.raises(runtime.ModelFileError, match="no packaged model; those are edge-n, edge-s, tiny"):
        runtime.Pose("tinyy")
    with pytest.raises(runtime.ModelFileError, match=r"the extension is '\.safetensors', .*python -m converters"):
        runtime.Pose("model.safetensors")
