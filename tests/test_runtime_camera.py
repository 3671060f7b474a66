"""Cameras that fail: noticed within 2 s, reported, opened again; nobody ever waits inside a driver."""

from __future__ import annotations

import gc
import logging
import threading
import time
from itertools import islice, pairwise
from pathlib import Path

import cv2
import pytest
from cameras import FakeCamera, FakeCapture

import runtime
from runtime import camera as camera_module
from runtime.errors import InputError
from runtime.video import open_source

NOTICED_WITHIN_S = 2.0


@pytest.fixture
def plug_in(monkeypatch):
    """Put a fake camera where OpenCV finds it."""

    def plug(*timetable):
        fake = FakeCamera(*timetable)
        monkeypatch.setattr(cv2, "VideoCapture", fake)
        return fake

    return plug


def iterate_for(source, seconds):
    """Each frame with the moment of its arrival, for so many seconds."""
    started = time.monotonic()
    for frame in source:
        yield time.monotonic() - started, frame
        if time.monotonic() - started > seconds:
            return


def watch(source, seconds):
    """All of these frames."""
    return list(iterate_for(source, seconds))


def test_frames_come_in_order_with_their_time(plug_in):
    plug_in(("ok", 60))
    with open_source("0") as source:
        frames = [frame for _, frame in watch(source, 0.5)]
        assert source.kind == "camera" and source.is_live and source.is_continuous and source.count is None
    assert len(frames) > 20 and frames[0].time_s == 0
    assert all(a.index < b.index and a.time_s < b.time_s for a, b in pairwise(frames))
    assert not source.faults


def test_a_slow_reader_gets_the_newest_frame_and_sees_what_it_missed(plug_in):
    plug_in(("ok", 60))
    with open_source(0) as source:
        frames = iter(source)
        first = next(frames)
        time.sleep(0.5)
        second = next(frames)
        assert second.index - first.index > 20 and second.time_s > 0.4
        assert source.reader.dropped >= second.index - first.index - 2


@pytest.mark.parametrize(
    ("behaviour", "fault", "said"),
    [
        ("block", "blocked", "gives no frame for 1.5 s"),
        ("empty", "no frames", "gives no more frames"),
        ("none", "no frames", "gives no more frames"),
        ("odd", "no frames", "gives no more frames"),
        ("gone", "no frames", "gives no more frames"),
        ("freeze", "picture frozen", "shows the same picture for 1.5 s"),
    ],
)
def test_a_fault_is_noticed_reported_and_survived(plug_in, caplog, behaviour, fault, said):
    fake = plug_in(("ok", 0.3), (behaviour, 2.5), ("ok", 60))
    with caplog.at_level(logging.WARNING), open_source("0") as source:
        frames = [frame for _, frame in watch(source, 4.5)]
    assert source.faults == {fault: 1, "reconnected": 1} and fake.opened >= 2
    warnings = {record.message.split(": ", 1)[1]: record.created for record in caplog.records}
    reported_s = next(created for text, created in warnings.items() if text.startswith(said))
    began_s = time.time() - time.monotonic() + fake.began_s[1]
    assert reported_s - began_s < NOTICED_WITHIN_S
    assert any(text.startswith("back after") for text in warnings)
    assert all(a.index < b.index for a, b in pairwise(frames))
    assert fake.released == fake.opened  # nothing is left open


def test_a_camera_that_has_not_started_is_given_longer(plug_in, caplog, monkeypatch):
    monkeypatch.setattr(camera_module, "FIRST_FRAME_S", 2.0)
    plug_in(("block", 1.8), ("ok", 60))
    with open_source("0") as source:
        assert next(iter(source)).index == 0 and not source.faults
    monkeypatch.setattr(camera_module, "FIRST_FRAME_S", 0.5)
    monkeypatch.setattr(camera_module, "SILENCE_S", 0.2)
    plug_in(("block", 1.0), ("ok", 60))
    with open_source("0") as source:
        next(iter(source))
        assert source.faults["blocked"] >= 1 and "gives no frame for 0.5 s; opening it again" in caplog.text


def test_a_slow_camera_is_not_opened_again_and_again(plug_in, monkeypatch):
    monkeypatch.setattr(camera_module, "SILENCE_S", 0.2)
    fake = plug_in(("slow", 60))
    with open_source("0") as source:
        assert [frame.index for frame in islice(source, 7)] == [*range(7)]
        assert source.faults == {"blocked": 2, "reconnected": 2} and fake.opened == 3  # 0.2 s, 0.4 s, then 0.8 s


def test_a_camera_that_has_been_quick_is_expected_to_be(plug_in, monkeypatch, caplog):
    monkeypatch.setattr(camera_module, "SILENCE_S", 0.2)
    plug_in(("ok", 0.3), ("block", 0.5), ("ok", 0.5), ("block", 0.5), ("ok", 60))
    with open_source("0") as source:
        watch(source, 3.0)
    assert caplog.text.count("gives no frame for 0.2 s") == 2


def test_who_draws_on_the_picture_does_not_freeze_it(plug_in):
    plug_in(("ok", 60))
    with open_source("0") as source:
        for _, frame in iterate_for(source, 2.0):
            frame.image[:] = 0
        assert not source.faults


def test_a_read_that_never_returns_is_left_behind(plug_in):
    """The thread that hangs keeps its capture; the next connection works, and closing does not wait for it."""
    fake = plug_in(("ok", 0.3), ("hang", 0.5), ("ok", 60))
    source = open_source("0")
    frames = watch(source, 3.5)
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 0.5
    assert source.faults == {"blocked": 1, "reconnected": 1} and frames[-1][0] > 3
    assert fake.released == fake.opened - 1


def test_a_camera_that_hangs_for_ever_does_not_pile_up_threads(plug_in, monkeypatch):
    monkeypatch.setattr(camera_module, "FIRST_FRAME_S", 0.2)
    monkeypatch.setattr(camera_module, "SILENCE_S", 0.2)
    monkeypatch.setattr(camera_module, "BACK_OFF_S", (0.01,))
    fake = plug_in(("ok", 0.3), ("hang", 60))
    with open_source("0", retry_s=3) as source, pytest.raises(InputError, match="not back within 3 s"):
        list(source)
    assert fake.opened <= 1 + camera_module.MAX_HANGING_READERS


def test_a_still_scene_is_reported_once_and_then_believed(plug_in, caplog):
    plug_in(("freeze", 60))
    with caplog.at_level(logging.WARNING), open_source("0") as source:
        frames = watch(source, 5)
    assert source.faults == {"picture frozen": 1, "reconnected": 1} and len(frames) > 100


def test_another_size_is_reported_and_goes_on(plug_in, caplog):
    plug_in(("ok", 0.3), ("small", 60))
    with caplog.at_level(logging.WARNING), open_source("0") as source:
        sizes = {frame.image.shape for _, frame in watch(source, 0.6)}
    assert sizes == {(240, 320, 3), (120, 160, 3)} and source.faults == {"size changed": 1}
    assert "camera 0: frames are 160 x 120 px large, they were 320 x 240 px" in caplog.text


def test_gray_cameras_give_bgr(plug_in):
    plug_in(("gray", 60))
    with open_source("0") as source:
        assert next(iter(source)).image.shape == (240, 320, 3)


def test_a_camera_that_does_not_come_back_ends_with_an_error(plug_in):
    plug_in(("ok", 0.3), ("gone", 60))
    started = time.monotonic()
    with open_source("0", retry_s=2) as source, pytest.raises(InputError) as caught:
        list(source)
    assert time.monotonic() - started < 4
    assert "camera 0: gives no more frames after" in str(caught.value) and "not back within 2 s" in str(caught.value)


@pytest.mark.parametrize("behaviour", ["ok", "block", "hang", "gone"])
def test_closing_from_another_thread_ends_the_reading(plug_in, behaviour):
    plug_in(("ok", 0.2), (behaviour, 60))
    source = open_source("0")
    threading.Timer(1.0, source.close).start()
    started = time.monotonic()
    list(source)
    assert time.monotonic() - started < 2


def test_a_device_is_the_camera_of_its_number(plug_in, monkeypatch):
    plug_in(("ok", 60))
    monkeypatch.setattr(Path, "is_char_device", lambda path: True)
    for source in ("/dev/video7", Path("/dev/video7")):
        with open_source(source) as camera:
            assert (camera.kind, camera.name) == ("camera", "7")
    with pytest.raises(InputError, match="/dev/null: no such file or folder"):
        open_source("/dev/null")


def test_a_camera_that_is_not_there_is_named(plug_in):
    plug_in(("gone", 60))
    with pytest.raises(InputError, match="camera 3 cannot be opened: not there, in use, or not permitted"):
        open_source("3")


@pytest.fixture
def announce(monkeypatch):
    """Let fake cameras announce frames with sides of so many px."""

    def side(px):
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        monkeypatch.setattr(FakeCapture, "get", lambda capture, what: px if what in sides else -1.0)

    return side


@pytest.mark.parametrize(
    ("source", "said"), [("http://h/a.png", "stream http://h/a.png: has"), ("0", "camera 0: has 9000 x 9000 px, legal")]
)
def test_frames_that_are_announced_too_large_are_not_read(plug_in, announce, monkeypatch, source, said):
    fake = plug_in(("ok", 60))
    announce(9000)
    monkeypatch.setattr(FakeCapture, "read", lambda capture: pytest.fail("read"))
    with pytest.raises(InputError, match=said):
        open_source(source)
    assert fake.released == fake.opened == 1
    announce(8000)
    monkeypatch.setattr(FakeCapture, "read", lambda capture: (False, None))
    open_source(source).close()


def test_a_camera_that_comes_back_too_large_is_an_error_at_once(plug_in, announce):
    plug_in(("ok", 0.2), ("empty", 0.8), ("ok", 60))
    with open_source("0") as source, pytest.raises(InputError, match="camera 0: has 9000 x 9000 px, legal are 64 mega"):
        announce(9000)
        list(islice(source, 1000))


def others(before, within_s):
    """Threads that were not there before and do not end in time."""
    deadline = time.monotonic() + within_s
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    return set(threading.enumerate()) - before


@pytest.mark.parametrize("then", ["ok", "empty"])
@pytest.mark.parametrize("way", ["video", "live"])
def test_a_camera_that_nobody_holds_any_more_is_let_go(plug_in, centroid_onnx, way, then):
    fake, before = plug_in(("ok", 0.3), (then, 60)), set(threading.enumerate())
    pose = runtime.Pose(centroid_onnx, threads=1)
    for frame in getattr(pose, way)(0):
        if frame.time_s > 0.2:
            break
    time.sleep(0.2)
    gc.collect()
    assert not others(before, 1.0) and fake.released == fake.opened == 1


def test_who_is_called_back_need_not_hold_the_camera(plug_in, centroid_onnx):
    fake, before, seen = plug_in(("ok", 60)), set(threading.enumerate()), []
    runtime.Pose(centroid_onnx, threads=1).live(0, lambda frame: seen.append(frame.time_s) or frame.time_s < 0.5)
    gc.collect()
    assert not others(before, 3.0) and seen[-1] >= 0.5 and fake.released == fake.opened == 1


def test_pauses_between_attempts_grow(plug_in, monkeypatch):
    pauses = []
    plug_in(("ok", 0.2), ("gone", 60))
    with open_source("0", retry_s=3) as source:
        wait = source._closing.wait
        monkeypatch.setattr(source._closing, "wait", lambda pause_s: (pauses.append(pause_s), wait(pause_s))[1])
        with pytest.raises(InputError):
            list(source)
    assert pauses == [0.25, 0.5, 1.0]
