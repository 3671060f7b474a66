"""URLs: live pictures over HTTP and RTSP from servers on this machine, and files that a URL names."""

from __future__ import annotations

import time
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
from streams import SIZE_WH, served

import runtime
from runtime import camera as camera_module
from runtime.errors import InputError
from runtime.video import open_source


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch):
    """FFmpeg would ask it for this machine's address, too."""
    monkeypatch.delenv("http_proxy", raising=False)


def shade(frame):
    """The gray of a picture that a server made."""
    return int(frame.image[0, 0, 0])


@pytest.mark.parametrize("kind", ["http", "rtsp"])
def test_a_stream_is_read_live(kind):
    with served(kind) as address, open_source(f"{kind}://me:secret@{address}") as source:
        assert source.kind == "stream" and source.is_live and source.is_continuous
        frames = list(islice(source, 20))
    assert all(frame.image.shape == (SIZE_WH[1], SIZE_WH[0], 3) for frame in frames)
    assert all(a.index < b.index and a.time_s < b.time_s for a, b in pairwise(frames))
    assert all(frame.index == shade(frame) for frame in frames)
    assert {frame.name for frame in frames} == {f"{kind}://me:***@{address}"}


def test_a_camera_that_hangs_up_is_called_again(caplog):
    with served("rtsp", last=15) as address, open_source(f"rtsp://{address}") as source:
        frames = list(islice(source, 20))
        assert source.faults["no frames"] == source.faults["reconnected"] >= 1
    assert f"stream rtsp://{address}: gives no more frames; opening it again" in caplog.text
    assert [shade(frame) for frame in frames] == [frame.index % 15 for frame in frames]


@pytest.mark.parametrize(
    ("extension", "seconds"), [("mkv", 2.0), ("avi", 2.0), ("mkv", 6.0)], ids=["mkv", "avi", "while it is sought"]
)
def test_ctrl_c_is_heard_while_a_remote_film_stalls(tmp_path, extension, seconds, interrupt_after):
    """Also when FFmpeg has given up, after 5 s, and what is behind is looked for."""
    path, frames = tmp_path / f"film.{extension}", []
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for image in np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3), np.uint8):
        writer.write(image)
    writer.release()
    with served("file", file=path) as address, open_source(f"http://{address}") as source:
        assert source.kind == "video" and source.count == 60
        interrupt_after(seconds)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            for frame in source:
                frames.append(frame.index)
        assert time.monotonic() - started < seconds + 0.5 and len(frames) == 40  # two thirds


def test_poses_of_a_stream(centroid_onnx):
    seen = []
    with served("rtsp") as address, runtime.Pose(centroid_onnx, threads=1) as pose:
        with pose.live(f"rtsp://{address}", lambda frame: seen.append(frame) or len(seen) < 10) as live:
            live.wait()
        assert [frame.index for frame in seen] == sorted({frame.index for frame in seen}) and len(seen) == 10
        with pose.video(f"rtsp://{address}") as video:
            assert [frame.name for frame in islice(video, 3)] == [f"rtsp://{address}"] * 3


def test_a_stream_that_does_not_answer_is_an_error_in_time(monkeypatch):
    monkeypatch.setattr(camera_module, "FIRST_FRAME_S", 0.3)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *args: time.sleep(1000))
    with pytest.raises(InputError, match="rtsp://nobody/x: the stream cannot be opened"):
        open_source("rtsp://nobody/x")


def test_a_url_of_a_video_is_a_video(moving_dots):
    clip, truth = moving_dots
    with open_source(f"file://{clip}") as source:
        assert source.kind == "video" and len(list(source)) == len(truth)


def test_a_url_of_a_file_is_that_file(tmp_path):
    encoded = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    (tmp_path / "a #1?.png").write_bytes(encoded)
    (tmp_path / "big.png").write_bytes(encoded[:16] + (9000).to_bytes(4, "big") * 2 + encoded[24:])
    for name in ("a #1?.png", "a%20%231%3f.png"):
        with open_source(f"FILE://localhost{tmp_path}/{name}") as source:
            assert source.kind == "image" and [frame.image.shape for frame in source] == [(16, 16, 3)]
    with open_source(f"file://{tmp_path}") as source:
        assert source.kind == "folder"
    with (
        open_source(f"file://{tmp_path}/big.png") as source,
        pytest.raises(InputError, match=r"big\.png: has 9000 x 9000 px, legal are 64 megapixels at most"),
    ):
        list(source)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://host/a", "rtsp://host/a"),
        ("rtsp://me:a:b@host:554/x?y=1", "rtsp://me:***@host:554/x?y=1"),
        ("http://[", "http://["),
        ("rtsp://admin:pass#1@host/", "rtsp://admin:***@host/"),
        ("rtsp://admin:a/b?c@d@host/x", "rtsp://admin:***@host/x"),
        ("http://host:80/a", "http://host:80/a"),
        ("http://me@host/a:b", "http://me@host/a:b"),
    ],
)
def test_passwords_are_not_shown(url, shown):
    assert camera_module.without_password(url) == shown
