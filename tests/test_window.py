"""The window: what it shows of files and cameras, and what its keys do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cameras import FakeCamera
from fake_window import FakeWindow

import runtime
from runtime import webcam
from runtime.video import open_source

ROOT = Path(__file__).parent.parent
REAL_CAPTURE = cv2.VideoCapture


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def window(monkeypatch):
    return lambda *presses: FakeWindow(monkeypatch, presses)


@pytest.fixture
def command(centroid_onnx):
    return lambda *arguments: webcam.main(["--threads", "1", "--model", str(centroid_onnx), *map(str, arguments)])


@pytest.fixture
def camera(monkeypatch):
    """A fake camera; files are opened for real."""

    def plug(*timetable):
        fake = FakeCamera(*timetable)
        opened = lambda *args: fake() if args[0] == 0 else REAL_CAPTURE(*args)  # noqa: E731
        monkeypatch.setattr(cv2, "VideoCapture", opened)
        return fake

    return plug


def count_frames(path):
    with open_source(path) as source:
        return len(list(source))


def test_a_film_is_shown_at_its_own_pace(command, moving_dots, window):
    seen, started = window(), time.monotonic()
    assert command("--source", moving_dots[0]) == 0
    assert len(seen.shown) == 12 and time.monotonic() - started > 1.0  # 12 frames at 10 per second
    assert any("fps" in text and "ms" in text for text in seen.texts)


def test_a_closed_window_quits(command, moving_dots, window):
    seen = window((3, "close"))
    assert command("--source", moving_dots[0], "--save", "drawn.mp4") == 0
    assert len(seen.shown) == 3 and count_frames("drawn.mp4") == 3


def test_m_mirrors_the_view_and_not_the_recording(command, moving_dots, window):
    seen = window((6, "m"))
    assert command("--source", moving_dots[0], "--save", "drawn.avi") == 0
    with open_source("drawn.avi") as source:
        saved = [frame.image for frame in source]
    below_text = slice(60, None)
    saved.insert(6, saved[5])  # at once: the frame that is there is shown again
    for number, (shown, kept) in enumerate(zip(seen.shown, saved, strict=True)):
        expected = kept if number < 6 else kept[:, ::-1]
        difference = np.abs(shown[below_text].astype(int) - expected[below_text])
        assert difference.mean() < 3 and np.abs(shown.astype(int) - expected[:, ::-1]).mean() > difference.mean()


def test_r_records_what_lies_between_two_presses(command, moving_dots, window, workplace, capsys):
    window((3, "r"), (8, "r"))
    assert command("--source", moving_dots[0]) == 0
    (path,) = workplace.iterdir()
    assert path.name.startswith("pose-2") and count_frames(path) == 5
    assert f"written: {path.name}" in capsys.readouterr().err


def test_recordings_of_the_same_second_are_all_kept(command, moving_dots, window, workplace, monkeypatch):
    monkeypatch.setattr("runtime.playing.NAME_OF_RECORDINGS", "pose.mp4")
    window((1, "r"), (3, "r"), (4, "r"), (7, "r"), (8, "r"), (12, "q"))
    assert command("--source", moving_dots[0]) == 0
    lengths = {path.name: count_frames(path) for path in workplace.iterdir()}
    assert lengths == {"pose.mp4": 2, "pose-2.mp4": 3, "pose-3.mp4": 4}


def test_a_recording_that_is_still_running_at_the_end_is_whole(command, moving_dots, window, workplace):
    window((3, "r"), (8, "q"))
    assert command("--source", moving_dots[0]) == 0
    (path,) = workplace.iterdir()
    assert count_frames(path) == 5


def test_a_recording_that_cannot_be_written_is_said_and_the_show_goes_on(
    command, moving_dots, window, caplog, monkeypatch
):
    monkeypatch.setattr("runtime.playing.NAME_OF_RECORDINGS", "no/pose.mp4")
    seen = window((3, "r"))
    assert command("--source", moving_dots[0]) == 0
    assert len(seen.shown) == 12 and "record: no/pose.mp4: there is no folder no" in caplog.text


def test_n_takes_the_next_model(command, centroid_onnx, moving_dots, window):
    other = centroid_onnx.with_name("other.onnx")
    shutil.copy(centroid_onnx, other)
    facts = json.loads(Path(f"{centroid_onnx}.json").read_text())
    facts["files"] = {"other.onnx": facts["files"]["pose.onnx"]}
    facts["keypoint_names"] = ["nose", "left_knee", "right_knee"]
    Path(f"{other}.json").write_text(json.dumps(facts))
    seen = window((4, "n"), (8, "n"))
    assert command(other, "--source", moving_dots[0], "--json", "poses.jsonl") == 0
    names = [json.loads(line)["names"][1] for line in Path("poses.jsonl").read_text().splitlines()]
    assert names == ["left_hip"] * 4 + ["left_knee"] * 4 + ["left_hip"] * 4
    assert "pose.onnx" in " ".join(seen.texts) and "other.onnx" in " ".join(seen.texts)


def test_a_next_model_that_is_damaged_is_said_and_the_present_one_stays(
    command, centroid_onnx, moving_dots, window, caplog
):
    other = centroid_onnx.with_name("other.onnx")
    shutil.copy(centroid_onnx, other)
    shutil.copy(f"{centroid_onnx}.json", f"{other}.json")
    seen = window((4, "n"))
    assert command(other, "--source", moving_dots[0]) == 0
    assert len(seen.shown) == 12 and "other.onnx: the file 'other.onnx' is not listed" in caplog.text


def test_pictures_wait_for_a_key_each(command, tmp_path, window):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((80, 80, 3), number, np.uint8))
    seen = window((1, "x"), (2, "q"))
    assert command("--source", tmp_path) == 0
    assert len(seen.shown) == 2


def test_m_and_n_leave_a_picture_where_it_is(command, centroid_onnx, tmp_path, window):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (100, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f"{number}.png"), noise)
    other = centroid_onnx.with_name("other.onnx")
    shutil.copy(centroid_onnx, other)
    facts = json.loads(Path(f"{centroid_onnx}.json").read_text())
    Path(f"{other}.json").write_text(json.dumps(facts | {"files": {"other.onnx": facts["files"]["pose.onnx"]}}))
    seen = window((1, "m"), (2, "n"), (3, "x"), (4, "q"))
    assert command(other, "--source", pictures) == 0
    first, mirrored, again, second = (image[60:].astype(int) for image in seen.shown)
    np.testing.assert_array_equal(mirrored, first[:, ::-1])
    np.testing.assert_array_equal(again, mirrored)  # the same network under another name
    assert np.abs(second - mirrored).mean() > 20
    assert "pose.onnx" in seen.texts[0] and "other.onnx" in seen.texts[-1]


def test_a_film_does_not_catch_up_after_a_pause(command, moving_dots, window):
    seen = window((3, " "))
    wait, shown_s, waits = cv2.waitKey, [], []

    def paused_for_a_second(delay_ms):
        if len(seen.shown) > len(shown_s):
            shown_s.append(time.monotonic())
        if len(seen.shown) == 3:
            waits.append(delay_ms)
            if sum(waits) > 1000:
                waits.clear()
                seen.presses = [(3, " ")]
        return wait(delay_ms)

    cv2.waitKey = paused_for_a_second  # the fixture's patch is undone at the end
    assert command("--source", moving_dots[0]) == 0
    assert shown_s[3] - shown_s[2] > 0.9 and shown_s[11] - shown_s[3] > 0.7  # 8 frames at 10 per second


def test_m_mirrors_a_paused_film_at_once(command, moving_dots, window):
    seen = window((3, " "), (3, "m"), (4, "q"))
    assert command("--source", moving_dots[0]) == 0
    assert len(seen.shown) == 4
    np.testing.assert_array_equal(seen.shown[3][60:], seen.shown[2][60:, ::-1])


def test_slow_films_hear_keys_and_a_closed_window_at_once(command, tmp_path, window):
    path = tmp_path / "slow.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 1, (64, 48))
    for number in range(3):
        writer.write(np.full((48, 64, 3), 50 * number, np.uint8))
    writer.release()
    seen = window((2, "close"))
    wait, longest = cv2.waitKey, []
    cv2.waitKey = lambda delay_ms: (longest.append(delay_ms), wait(delay_ms))[1]
    assert command("--source", path) == 0
    assert len(seen.shown) == 2 and max(longest) <= 50


def test_a_recording_of_a_camera_lasts_as_long_as_it_was_watched(command, camera, window, monkeypatch):
    """The model is slower than the camera, so frames are dropped: the film keeps its pace all the same."""
    camera(("ok", 60))
    window((12, "q"))
    infer = runtime.Pose._infer
    monkeypatch.setattr(runtime.Pose, "_infer", lambda *args: (time.sleep(0.1), infer(*args))[1])
    assert command("--save", "drawn.avi", "--json", "poses.jsonl") == 0
    times = [json.loads(line)["time_s"] for line in Path("poses.jsonl").read_text().splitlines()]
    with open_source("drawn.avi") as film:
        seconds = film.count / film.fps
    assert times[-1] - times[0] > 0.8 and abs(seconds - (times[-1] - times[0])) < 0.1


def test_a_camera_is_shown_live_until_q(command, camera, window, capsys):
    fake = camera(("ok", 60))
    seen = window((20, "q"))
    assert command("--save", "drawn.mp4", "--json", "poses.jsonl") == 0
    lines = [json.loads(line) for line in Path("poses.jsonl").read_text().splitlines()]
    assert len(seen.shown) == 20 <= len(lines)
    assert [line["index"] for line in lines] == sorted({line["index"] for line in lines})
    assert fake.released == fake.opened == 1 and "dropped" in capsys.readouterr().err


def test_space_pauses_a_camera(command, camera, window):
    camera(("ok", 60))
    seen = window((5, " "))
    pressed = []

    def wait(delay_ms):
        time.sleep(delay_ms / 1000)
        if len(seen.shown) < 5 or len(pressed) > 50:
            return ord("q") if len(pressed) > 50 else -1
        pressed.append(delay_ms)
        return ord(" ") if len(pressed) == 1 else -1

    cv2.waitKey = wait  # the fixture's patch is undone at the end
    assert command("--json", "poses.jsonl") == 0
    assert len(seen.shown) <= 7 and len(Path("poses.jsonl").read_text().splitlines()) <= 20


def test_keys_are_heard_while_the_camera_is_gone(command, camera, window):
    fake = camera(("ok", "go"), ("hang", 60))
    seen = window()
    pressed_s = []

    def wait(delay_ms):
        if len(seen.shown) > 5:
            Path("go").touch()
        if len(fake.began_s) < 2 or time.monotonic() - fake.began_s[1] < 2.5:
            return seen.wait(delay_ms)
        pressed_s.append(time.monotonic())
        return ord("q")

    cv2.waitKey = wait
    assert command("--json", "poses.jsonl") == 0
    assert len(pressed_s) == 1 and time.monotonic() - pressed_s[0] < 1


def test_what_was_not_written_is_not_said(command, camera, window, capsys):
    camera(("block", 60))
    window((0, "r"), (0, "q"))
    Path("poses.jsonl").write_text("earlier\n")
    assert command("--save", "drawn.mp4", "--json", "poses.jsonl") == 0
    assert "written:" not in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["poses.jsonl"]
    assert Path("poses.jsonl").read_text() == "earlier\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a display")
def test_without_display_variables_no_window_is_tried():
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    code = "from runtime.window import has_display; print(has_display())"
    for extra, expected in (({}, "False"), ({"DISPLAY": ":987"}, "False")):
        child = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment | extra, capture_output=True, text=True, check=True
        )
        assert child.stdout.strip() == expected


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="no virtual display here")
def test_a_real_window_on_a_virtual_display(centroid_onnx, moving_dots, workplace):
    arguments = ["--model", str(centroid_onnx), "--threads", "1", "--source", str(moving_dots[0])]
    command = [sys.executable, "-m", "runtime.webcam", *arguments]  # no target: without a window an error
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])}
    child = subprocess.run(
        ["xvfb-run", "-a", *command], cwd=workplace, env=environment, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0 and "frame 12/12" in child.stderr, child.stderr
