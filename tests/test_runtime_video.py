"""Sources: what opens, in which order frames come, and how damaged ones are reported."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime
from runtime.disk import check_target
from runtime.errors import InputError, ModelFileError
from runtime.video import open_source, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three pictures and a text file."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in (2, 1, 3):
        cv2.imwrite(str(pictures / f"{number}.png"), NOISE + np.uint8(number))
    (pictures / "notes.txt").write_text("hello")
    return pictures


def test_a_picture_is_one_frame(folder):
    source = open_source(folder / "1.png")
    frames = list(source)
    assert source.kind == "image" and not source.is_continuous and len(frames) == 1
    assert (frames[0].index, frames[0].time_s, frames[0].name) == (0, 0, "1.png")
    np.testing.assert_array_equal(frames[0].image, NOISE + np.uint8(1))


@pytest.mark.parametrize("pattern", ["", "*.png", "[123].*"])
def test_folders_and_globs_come_in_order(folder, pattern):
    source = open_source(folder / pattern if pattern else folder)
    assert source.count == 3
    assert [frame.name for frame in source] == ["1.png", "2.png", "3.png"]


def test_a_video_gives_every_frame_with_its_time(moving_dots):
    clip, truth = moving_dots
    with open_source(str(clip)) as source:
        frames = list(source)
        assert source.kind == "video" and source.fps == pytest.approx(10) and source.count == len(truth)
    assert [frame.index for frame in frames] == list(range(len(truth)))
    times_s = [frame.time_s for frame in frames]
    np.testing.assert_allclose(times_s, np.arange(len(truth)) / 10, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "flags"),
    [(NOISE[:, :, 0], None), (np.dstack([NOISE, NOISE[:, :, 0]]), None), (NOISE.astype(np.uint16) << 8, None)],
    ids=["gray", "bgra", "16 bit"],
)
def test_pictures_of_other_kinds_are_read_as_bgr(tmp_path, image, flags):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    read = read_image(tmp_path / "a.png")
    expected = np.dstack([NOISE[:, :, 0]] * 3) if image.ndim == 2 else NOISE
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_a_truncated_picture_is_an_error(tmp_path, extension):
    smooth = cv2.GaussianBlur(cv2.resize(NOISE, (320, 240)), (0, 0), 3)
    encoded = cv2.imencode(extension, smooth)[1].tobytes()
    (tmp_path / f"cut{extension}").write_bytes(encoded[: len(encoded) // 2])
    with pytest.raises(InputError, match=rf"cut\{extension}: cannot be decoded"):
        list(open_source(tmp_path / f"cut{extension}"))


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_that_is_no_picture_is_an_error(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg"):
        list(open_source(tmp_path / "a.jpg"))


def test_a_bad_picture_in_a_folder_is_reported_and_left_out(folder, caplog):
    (folder / "2.png").write_bytes(b"broken")
    source = open_source(folder)
    with caplog.at_level(logging.WARNING):
        frames = list(source)
    assert [(frame.index, frame.name) for frame in frames] == [(0, "1.png"), (1, "3.png")]
    assert source.faults == {"picture unreadable": 1} and "2.png" in caplog.text


def test_a_folder_of_bad_pictures_is_an_error(folder):
    for path in folder.glob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="none of its 3 pictures"):
        list(open_source(folder))


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("gone.jpg", "gone.jpg: no such file"),
        ("gone/*.png", "no pictures there"),
        ("", "the source is ''"),
        (True, "the source is True"),
        ("99", "camera 99 cannot be opened"),
        (99, "camera 99 cannot be opened"),
        ("file://gone.mp4", "gone.mp4: no such file"),
        ("gone://gone.mp4", "stream cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_named(source, named):
    with pytest.raises(InputError) as caught:
        open_source(source)
    assert named in str(caught.value) and caught.value.exit_code == 4


def test_a_path_is_never_a_camera_and_a_glob_may_go_down(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2024/a.png", "2024/b/c.png"):
        Path(name).parent.mkdir(exist_ok=True)
        cv2.imwrite(name, np.zeros((8, 8, 3), np.uint8))
    assert open_source(Path("2024")).kind == "folder"
    assert [path.name for path in open_source("2024/**/*.png").paths] == ["a.png", "c.png"]


def test_what_the_file_system_refuses_is_an_error_of_ours(tmp_path):
    """Names that are too long stand for closed folders, too, which an administrator's tests cannot make."""
    name = "x" * 300
    with pytest.raises(InputError, match=r"xx: cannot be read: File name too long"):
        open_source(name)
    with pytest.raises(InputError, match=r"x\.mp4: the folder .* cannot be written to: File name too long"):
        check_target(tmp_path / f"{name}.mp4", (".mp4",))
    with pytest.raises(ModelFileError, match=r"x\.onnx: cannot be read: File name too long"):
        runtime.Pose(f"{name}.onnx")
    with pytest.raises(ModelFileError, match="xx: no such artifact, and no packaged model"):
        runtime.Pose(name)
    with pytest.raises(ModelFileError, match=r"x\.onnx: no such file"):
        runtime.NetworkDetector(f"{name}.onnx")


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no pictures there"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_a_broken_video_is_an_error(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: cannot be opened: damaged, or neither a video"):
        open_source(tmp_path / "a.mp4")


def test_a_video_that_ends_early_says_so(moving_dots, caplog):
    clip, truth = moving_dots
    source = open_source(clip)
    source.count = 3 * len(truth)
    with caplog.at_level(logging.WARNING):
        assert len(list(source)) == len(truth)
    assert f"{len(truth)} of {3 * len(truth)} frames could be read" in caplog.text


def test_text_is_no_video(tmp_path):
    """FFmpeg would paint it."""
    (tmp_path / "notes.txt").write_text("hello world\n" * 200)
    with pytest.raises(InputError, match=r"notes\.txt: (is text, not a video|cannot be opened)"):
        open_source(tmp_path / "notes.txt")
