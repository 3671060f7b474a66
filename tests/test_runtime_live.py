"""`Pose.live` and `Pose.video` as objects: order, dropped frames, errors, and how fast they end."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from cameras import FakeCamera

import runtime
from runtime.camera import connect
from runtime.live import Live
from runtime.video import RawFrame, Source

NOBODY = runtime.PoseResult(
    np.zeros((0, 3, 2), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 4), np.float32), (), (), (4, 4), {}
)


@dataclass
class Camera(Source):
    """Gives `frames` pictures, `seconds` apart; then ends, raises, or blocks."""

    frames: int = 30
    seconds: float = 0.004
    ending: BaseException | None = None
    blocks: threading.Event | None = None
    closed: bool = False

    def __iter__(self):
        for index in range(self.frames):
            time.sleep(self.seconds)
            yield RawFrame(index, index * self.seconds, "camera", np.full((4, 4, 3), index, np.uint8))
        if self.blocks:
            self.blocks.wait(10)
        if self.ending:
            raise self.ending

    def close(self):
        self.closed = True


def camera(**values):
    return Camera("camera", "camera", **values)


def see(image, time_s):
    return NOBODY


def slow(image, time_s):
    time.sleep(0.015)
    return NOBODY


def test_a_slow_look_drops_frames_counts_them_and_keeps_the_order():
    seen = []
    source = camera(frames=60)
    with Live(source, slow, lambda frame: seen.append(frame)) as live:
        assert live.wait(5)
    indices = [frame.index for frame in seen]
    assert indices == sorted(set(indices)) and 3 < len(indices) < 40
    assert indices[-1] == 59  # the last one is never lost
    assert live.frames_read == 60 and live.frames_answered == len(seen) and source.closed
    assert live.frames_answered + live.frames_dropped == live.frames_read
    assert all((frame.image == frame.index).all() for frame in seen)


def test_the_newest_frame_is_taken():
    """While one frame is looked at, several come: the next answer is about the last of them."""
    for frame in Live(camera(frames=20, seconds=0.01), lambda image, time_s: time.sleep(0.055) or NOBODY):
        assert frame.latency_ms < 400  # in a queue the last would have waited for 20 x 45 ms


def test_what_the_source_itself_dropped_is_counted():
    class Gappy(Camera):
        def __iter__(self):
            yield from (RawFrame(index, index / 30, "camera", np.zeros((4, 4, 3), np.uint8)) for index in (0, 3, 4, 9))

    live = Live(Gappy("camera", "camera"), see)
    answered = [frame.index for frame in live]
    assert answered[-1] == 9 and live.frames_read == 10 and live.frames_dropped == 10 - len(answered)


def test_a_fast_look_drops_nothing():
    """A camera whose next frame comes when the last one has been answered."""
    answered = threading.Semaphore(1)

    class Patient(Camera):
        def __iter__(self):
            for raw in super().__iter__():
                assert answered.acquire(timeout=5)
                yield raw

    live = Live(Patient("camera", "camera", frames=20, seconds=0), lambda image, time_s: answered.release() or NOBODY)
    assert [frame.index for frame in live] == list(range(20)) and live.frames_dropped == 0 and not live.is_running


@pytest.mark.parametrize("with_callback", [True, False])
def test_the_end_of_a_camera_is_raised_after_its_last_frame(with_callback):
    seen = []
    source = camera(frames=3, ending=runtime.InputError("camera: gives no more frames"))
    live = Live(source, see, seen.append if with_callback else None)
    with pytest.raises(runtime.InputError, match="no more frames"):
        seen.extend(live) if not with_callback else live.wait()
    assert seen[-1].index == 2


def test_an_error_of_the_callback_is_raised_and_ends_it():
    def fail(frame):
        raise KeyError(frame.index)

    started = time.monotonic()
    with pytest.raises(KeyError), Live(camera(frames=10_000), see, fail) as live:
        live.wait()
    assert time.monotonic() - started < 1 and live.frames_answered == 1 and live.source.closed


def test_an_error_of_the_model_is_raised_at_the_end_of_the_with():
    def broken(image, time_s):
        raise runtime.ModelFileError("broken")

    with pytest.raises(runtime.ModelFileError), Live(camera(frames=10_000), broken, lambda frame: None) as live:
        time.sleep(0.1)
    assert not live.is_running


def test_an_error_of_the_model_ends_the_iteration():
    def broken(image, time_s):
        raise runtime.ModelFileError("broken")

    live = Live(camera(frames=10_000), broken)
    with pytest.raises(runtime.ModelFileError):
        next(live)
    assert not live.is_running and live.source.closed
    with pytest.raises(StopIteration):
        next(live)


def test_an_error_inside_the_with_is_not_replaced():
    with pytest.raises(ZeroDivisionError), Live(camera(ending=runtime.InputError("x")), see, lambda frame: None):
        time.sleep(0.3)
        raise ZeroDivisionError


def test_false_from_the_callback_is_the_end():
    seen = []
    live = Live(camera(frames=10_000), see, lambda frame: seen.append(frame.index) or len(seen) < 3)
    assert live.wait(5) and len(seen) == 3
    live.stop()
    assert live.source.closed


def test_stop_from_the_callback_and_from_outside():
    known, lives = threading.Event(), []
    live = Live(camera(frames=10_000), lambda *args: known.wait(2) and NOBODY, lambda frame: lives[0].stop())
    lives.append(live)
    known.set()
    assert live.wait(2) and live.frames_answered == 1
    again = Live(camera(frames=10_000), see)
    next(again)
    again.stop()
    again.stop()
    assert list(again) == [] and again.source.closed


@pytest.mark.parametrize("with_callback", [True, False])
def test_a_camera_that_blocks_is_left_within_a_second(with_callback, caplog):
    release = threading.Event()
    source = camera(frames=2, blocks=release)
    live = Live(source, see, (lambda frame: None) if with_callback else None)
    time.sleep(0.1)
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 1 and "left behind" in caplog.text
    release.set()
    deadline = time.monotonic() + 2
    while not source.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.closed  # by the thread that was reading, once it came back


@pytest.mark.parametrize("behaviour", ["hang", "block", "empty"])
def test_a_real_camera_that_fails_is_left_within_a_second(behaviour):
    camera = connect("camera", "0", FakeCamera(("ok", 0.3), (behaviour, 30)))
    with Live(camera, see, lambda frame: None) as live:
        time.sleep(0.6)
        started = time.monotonic()
    assert time.monotonic() - started < 1 and not live.is_running and live.frames_answered > 5


@pytest.mark.parametrize(("silent_s", "is_noticed"), [(3.0, False), (6.5, True)])
def test_a_camera_is_given_six_seconds_for_its_first_frame(silent_s, is_noticed, caplog):
    started = time.time()
    with connect("camera", "0", FakeCamera(("block", silent_s), ("ok", 60))) as camera:
        next(iter(camera))
    assert camera.faults == ({"blocked": 1, "reconnected": 1} if is_noticed else {})
    assert [5.9 < record.created - started < 7 for record in caplog.records[:1]] == [True] * is_noticed


def test_a_real_camera_that_comes_back_goes_on():
    camera = connect("camera", "0", FakeCamera(("ok", 0.2), ("empty", 0.9), ("ok", 30)))
    seen = []
    with Live(camera, see, lambda frame: seen.append(frame.index)):
        deadline = time.monotonic() + 15
        while not (camera.faults["reconnected"] and len(seen) > 30) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert camera.faults["reconnected"] == 1 and seen == sorted(set(seen))


def test_ctrl_c_while_waiting_ends_within_a_second(interrupt_after):
    source = camera(frames=10_000)
    with pytest.raises(KeyboardInterrupt), Live(source, see, lambda frame: None) as live:
        interrupt_after(0.2)
        started = time.monotonic()
        live.wait()
    assert time.monotonic() - started < 1.2
    assert not live.is_running and source.closed


def test_a_video_comes_at_its_own_pace(centroid_onnx, moving_dots):
    clip, truth = moving_dots
    started = time.monotonic()
    with runtime.Pose(centroid_onnx, threads=1).live(clip) as live:
        frames = list(live)
    assert time.monotonic() - started > (len(truth) - 1) / 10 - 0.05
    assert live.frames_read == len(truth) and frames[-1].result.ids.tolist() == [1]
    assert np.abs(frames[-1].result.keypoints_xy[0] - truth[frames[-1].index]).max() < 15


def test_live_needs_moving_pictures(centroid_onnx, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(runtime.InputError, match="live needs a camera, stream or video"):
        runtime.Pose(centroid_onnx).live(tmp_path / "a.png", lambda frame: None)
    with pytest.raises(runtime.InputError, match=r"gone\.mp4"):
        runtime.Pose(centroid_onnx).live("gone.mp4", lambda frame: None)


def test_a_video_closes_its_source_at_the_end_and_when_left(centroid_onnx, moving_dots):
    pose = runtime.Pose(centroid_onnx)
    with pose.video(camera(frames=4, seconds=0)) as video:
        source = video.source
        assert next(video).index == 0 and not source.closed
    assert source.closed and list(video) == []
    ended = pose.video(camera(frames=2, seconds=0))
    assert len(list(ended)) == 2 and ended.source.closed
    failing = pose.video(camera(frames=2, seconds=0, ending=runtime.InputError("gone")))
    with pytest.raises(runtime.InputError, match="gone"):
        list(failing)
    assert failing.source.closed


def test_on_result_must_be_a_callable(centroid_onnx, moving_dots):
    with runtime.Pose(centroid_onnx, threads=1) as pose, pytest.raises(runtime.InputError, match="on_result is 5"):
        pose.live(moving_dots[0], 5)


def test_an_interrupted_wait_still_waits_for_the_result_in_hand(centroid_onnx, moving_dots, interrupt_after):
    """Python 3.11 takes a thread for ended whose join was interrupted."""
    done = []

    def slowly(frame):
        time.sleep(0.4)
        done.append(frame.index)

    with (
        runtime.Pose(centroid_onnx, threads=1) as pose,
        contextlib.suppress(KeyboardInterrupt),
        pose.live(moving_dots[0], slowly) as live,
    ):
        interrupt_after(0.2)
        live.wait()
    assert done == [0]
    time.sleep(0.5)
    assert done == [0] and not live.is_running


def test_results_go_to_one_place(centroid_onnx, moving_dots):
    with runtime.Pose(centroid_onnx, threads=1) as pose, pose.live(moving_dots[0], lambda frame: None) as live:
        with pytest.raises(runtime.InputError, match="gives its results to on_result"):
            next(iter(live))
        live.wait()
    assert live.frames_answered + live.frames_dropped == 12
