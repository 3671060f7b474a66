"""Runs of the command line that end early: by a signal, a full disk, a lost camera. What was written stays whole."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cameras import FakeCamera

from runtime import webcam
from runtime.disk import RESERVE_BYTES, check_target
from runtime.recording import LONGEST_HOLD_S, VideoRecorder
from runtime.video import open_source

TESTS = Path(__file__).parent
ENDS_WITHIN_S = 1.0
CHILD = """
import sys
sys.path.insert(0, {tests!r})
import cv2
from cameras import FakeCamera
writer = cv2.VideoWriter
cv2.VideoCapture, real = FakeCamera(*{timetable!r}), cv2.VideoCapture
import runtime.recording
from runtime import webcam
class Cv2:  # what checks the finished video opens it for real
    def __getattr__(self, name):
        return real if name == "VideoCapture" else getattr(cv2, name)
runtime.recording.cv2 = Cv2()
sys.exit(webcam.main(sys.argv[1:]))
"""


@pytest.fixture
def start(centroid_onnx, tmp_path):
    """Start the command line on a fake camera in a process of its own."""
    children = []

    def start(timetable, *arguments, **options):
        code = CHILD.format(tests=str(TESTS), timetable=timetable)
        command = [sys.executable, "-c", code, "--model", str(centroid_onnx), "--no-show", "--threads", "1", *arguments]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(TESTS.parent)])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes | options))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def wait_for_lines(path, least):
    """Until a growing file has so many lines."""
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= least, f"{path} does not grow")


def wait_for_text(path, text):
    """Until a growing file has this in it."""
    wait_until(lambda: text in path.read_text(), f"{path} does not get {text}")


def wait_until(is_true, failure):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if is_true():
            return
        time.sleep(0.02)
    pytest.fail(failure)


def end(child, number):
    """Send a signal; seconds until the process is gone, and what it said."""
    child.send_signal(number)
    started = time.monotonic()
    _, said = child.communicate(timeout=20)
    return time.monotonic() - started, said


def check_files(folder):
    """Both files are there under their names and whole. A film has a frame for each line; a camera's keeps to time."""
    assert not list(folder.glob(".*"))
    lines = [json.loads(line) for line in (folder / "poses.jsonl").read_text().splitlines()]
    with open_source(folder / "drawn.mp4") as video:
        frames = list(video)
        assert not video.faults
    assert frames and (len(frames) == len(lines) or lines[0]["name"] == "0")
    gaps = np.diff([line["time_s"] for line in lines])
    assert abs(len(frames) / video.fps - np.minimum(gaps, LONGEST_HOLD_S).sum()) < 0.3
    return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "timetable", [[("ok", "go")], [("ok", "go"), ("hang", 60)], [("ok", "go"), ("gone", 60)]], ids=str
)
def test_a_signal_ends_a_camera_within_a_second_with_whole_files(start, tmp_path, timetable, number):
    child = start(timetable, "--save", "drawn.mp4", "--json", "poses.jsonl")
    wait_for_lines(tmp_path / ".poses.partial.jsonl", 20)
    if len(timetable) > 1:
        (tmp_path / "go").touch()
        time.sleep(2.5)  # by then the camera is being looked for
    seconds, said = end(child, number)
    assert child.returncode == 130 and seconds < ENDS_WITHIN_S, said
    assert "Traceback" not in said
    check_files(tmp_path)


def test_a_signal_ends_a_video_within_a_second_with_whole_files(start, tmp_path):
    texture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(tmp_path / "long.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    for shift in range(600):
        writer.write(np.roll(texture, shift, axis=1))
    writer.release()
    code = "import sys; from runtime import webcam; sys.exit(webcam.main(sys.argv[1:]))"
    arguments = ["--source", "long.avi", "--save", "drawn.mp4", "--json", "poses.jsonl", "--no-show"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(TESTS.parent)])}
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    wait_for_lines(tmp_path / ".poses.partial.jsonl", 10)
    seconds, _ = end(child, signal.SIGINT)
    assert child.returncode == 130 and seconds < ENDS_WITHIN_S
    assert 10 <= len(check_files(tmp_path)) < 600


@pytest.mark.parametrize("extension", [".avi", ".mkv"])
def test_what_a_killed_run_leaves_can_be_read(start, tmp_path, extension):
    """Under the temporary names: whole lines, and a video in a format that needs no index at its end."""
    child = start([("ok", 600)], "--save", f"drawn{extension}", "--json", "poses.jsonl")
    wait_for_lines(tmp_path / ".poses.partial.jsonl", 150)
    end(child, signal.SIGKILL)
    assert [json.loads(line) for line in (tmp_path / ".poses.partial.jsonl").read_text().splitlines()]
    with open_source(tmp_path / f".drawn.partial{extension}") as video:
        assert len(list(video)) > 10


def test_a_camera_that_stays_away_ends_the_run_with_whole_files(start, tmp_path):
    child = start([("ok", "go"), ("gone", 60)], "--save", "drawn.mp4", "--json", "poses.jsonl", "--retry", "1")
    wait_for_lines(tmp_path / ".poses.partial.jsonl", 10)
    (tmp_path / "go").touch()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and said.splitlines()[-1].startswith("error: camera 0: gives no more frames after")
    assert "no frames: 1" in said
    check_files(tmp_path)


def test_a_camera_that_comes_back_in_another_size_goes_on(start, tmp_path):
    timetable = [("ok", "go"), ("gone", 1), ("small", "stop"), ("gone", 60)]
    child = start(timetable, "--save", "drawn.mp4", "--json", "poses.jsonl", "--retry", "3")
    wait_for_lines(tmp_path / ".poses.partial.jsonl", 10)
    (tmp_path / "go").touch()
    wait_for_text(tmp_path / ".poses.partial.jsonl", '"image_size_wh": [160, 120]')
    (tmp_path / "stop").touch()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and "size changed: 1" in said and "reconnected: 1" in said
    sizes = {tuple(line["image_size_wh"]) for line in check_files(tmp_path)}
    assert sizes == {(320, 240), (160, 120)}


def limit_files(size_bytes):
    """For a child process: no file may grow larger, and to try is an error, not a death."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    return limit


def test_a_video_stops_before_the_disk_is_full_and_is_whole(start, tmp_path):
    limit = limit_files(RESERVE_BYTES + 2 * 2**20)
    child = start([("ok", 600)], "--save", "drawn.mp4", "--json", "poses.jsonl", preexec_fn=limit)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and "error: drawn.mp4: cannot grow, there is room for" in said
    with open_source(tmp_path / "drawn.mp4") as video:
        frames, lines = list(video), (tmp_path / "poses.jsonl").read_text().splitlines()
    assert len(frames) > 10 < len(lines) and json.loads(lines[-1])
    assert (tmp_path / "drawn.mp4").stat().st_size > 2**20


def test_lines_that_do_not_fit_are_taken_back(start, tmp_path):
    child = start([("ok", 600)], "--json", "poses.jsonl", preexec_fn=limit_files(20_000))
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and "error: poses.jsonl: cannot be written: File too large" in said
    text = (tmp_path / "poses.jsonl").read_text()
    assert 15_000 < len(text) <= 20_000 and text.endswith("}\n")
    assert [json.loads(line)["index"] for line in text.splitlines()]


def test_a_full_disk_is_an_error_before_work_starts(start, tmp_path):
    child = start([("ok", 600)], "--save", "drawn.mp4", preexec_fn=limit_files(RESERVE_BYTES // 2))
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and "error: drawn.mp4: cannot grow, there is room for 8.0 MiB" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file of Linux")
def test_a_full_standard_output_is_an_error(start):
    with open("/dev/full", "w") as full:
        child = start([("ok", 600)], "--json", "-", stdout=full)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and said == "error: -: cannot be written: No space left on device\n"


def test_a_standard_output_that_nobody_reads_is_an_error(start):
    child = start([("ok", 600)], "--json", "-")
    child.stdout.close()
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and said == "error: -: cannot be written: Broken pipe\n"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 20 MiB, where this machine lets us mount one; elsewhere the limits above stand for it."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_loses_nothing(start, tmp_path, small_disk):
    child = start([("ok", 600)], "--save", "small/drawn.mp4", "--json", "small/poses.jsonl")
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and "error: small/drawn.mp4: cannot grow" in said
    lines = (small_disk / "poses.jsonl").read_text().splitlines()
    with open_source(small_disk / "drawn.mp4") as video:
        assert len(list(video)) > 10 < len(lines)
    assert json.loads(lines[-1])


def test_pictures_that_do_not_fit_leave_nothing_half_written(start, tmp_path, small_disk):
    (small_disk / "filler").write_bytes(bytes(20 * 2**20 - 3 * 4096))
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"pictures/{number}.png"), np.full((8, 8, 3), number, np.uint8))
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "pictures/3.png"), noise)
    child = start([("ok", 1)], "--source", "pictures", "--save", "small/drawn")
    _, said = child.communicate(timeout=60)
    assert child.returncode == 4 and "small/drawn/3.png: cannot be written: No space left on device" in said
    saved = sorted(path.name for path in (small_disk / "drawn").iterdir())
    assert saved in (["0.png", "1.png", "2.png"], ["0.png", "1.png"], ["0.png"])
    assert all(cv2.imread(str(small_disk / "drawn" / name)) is not None for name in saved)


def test_what_was_recorded_is_closed_even_when_one_file_fails(centroid_onnx, tmp_path, monkeypatch, capsys):
    """The video is gone when it is to be completed: the JSON lines are kept all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera(("ok", 0.5), ("gone", 60)))
    monkeypatch.setattr(VideoRecorder, "close", lambda self: os.replace(self.path, "nowhere"))
    arguments = ["--save", "drawn.mp4", "--json", "poses.jsonl", "--no-show", "--retry", "0.2"]
    assert webcam.main(["--model", str(centroid_onnx), *arguments]) == 4
    assert "camera 0: gives no more frames" in capsys.readouterr().err
    assert (tmp_path / "poses.jsonl").read_text().endswith("}\n")


def test_a_second_ctrl_c_waits_until_the_files_are_complete(centroid_onnx, tmp_path, monkeypatch, moving_dots):
    monkeypatch.chdir(tmp_path)
    close = VideoRecorder.close

    def disturbed(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        close(self)

    monkeypatch.setattr(VideoRecorder, "close", disturbed)
    before = signal.getsignal(signal.SIGINT)
    arguments = ["--source", str(moving_dots[0]), "--save", "drawn.mp4", "--json", "poses.jsonl", "--no-show"]
    assert webcam.main(["--model", str(centroid_onnx), *arguments]) == 0
    assert len((tmp_path / "poses.jsonl").read_text().splitlines()) == 12
    assert (tmp_path / "drawn.mp4").exists() and not list(tmp_path.glob(".*"))
    assert signal.getsignal(signal.SIGINT) is before


def test_another_run_does_not_remove_what_a_killed_one_left_before_it_writes(tmp_path):
    (tmp_path / ".poses.partial.jsonl").write_text("{}\n")
    check_target(tmp_path / "poses.jsonl")
    assert (tmp_path / ".poses.partial.jsonl").read_text() == "{}\n"
    assert len(list(tmp_path.iterdir())) == 1
