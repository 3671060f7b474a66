"""The command line: what it leaves behind, what it says, and how it ends."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import dots_image
from detector_files import write_detector
from fake_window import FakeWindow
from test_broken_video import REAL_CLIP

import runtime
from runtime import recording, webcam
from runtime.progress import Progress
from runtime.video import open_source

DOTS = np.array([[150.0, 90], [120, 130], [175, 140]])


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty current folder, no display."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(webcam, "has_display", lambda: False)
    return tmp_path / "here"


@pytest.fixture
def photo(workplace):
    cv2.imwrite(str(workplace.parent / "photo.png"), dots_image((320, 240), DOTS, radius=12))
    return workplace.parent / "photo.png"


@pytest.fixture
def command(centroid_onnx):
    return lambda *arguments: webcam.main(["--model", str(centroid_onnx), *map(str, arguments)])


def test_a_picture_without_a_display_is_drawn_into_the_current_folder(command, photo, workplace, capsys):
    assert command("--source", photo) == 0
    assert [path.name for path in workplace.iterdir()] == ["photo-pose.jpg"]
    assert "written: photo-pose.jpg" in capsys.readouterr().err
    assert (cv2.imread("photo-pose.jpg") != cv2.imread(str(photo))).any()


def test_a_video_is_saved_with_every_frame_and_its_json(command, moving_dots, centroid_onnx, workplace, capsys):
    clip, truth = moving_dots
    assert command("--source", clip, "--save", "drawn.mp4", "--json", "poses.jsonl", "--no-show") == 0
    assert sorted(path.name for path in workplace.iterdir()) == ["drawn.mp4", "poses.jsonl"]
    with open_source("drawn.mp4") as saved:
        frames = list(saved)
    assert len(frames) == len(truth) and frames[0].image.shape == (240, 320, 3)
    assert len(same_lines("poses.jsonl", runtime.Pose(centroid_onnx).video(clip))) == len(truth)
    assert "frame 12/12" in capsys.readouterr().err


def same_lines(path, frames):
    """The lines of JSON, after they were compared with these frames: each number of each person is the same."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for line, frame in zip(lines, frames, strict=True):
        result, persons = frame.result, line["persons"]
        assert (line["index"], line["time_s"], line["name"]) == (frame.index, frame.time_s, frame.name)
        assert (line["image_size_wh"], line["names"]) == ([*result.image_size_wh], [*result.names])
        assert [person["keypoints_xy"] for person in persons] == result.keypoints_xy.tolist()
        assert [person["scores"] for person in persons] == result.scores.tolist()
        assert [person["box_xyxy"] for person in persons] == result.boxes_xyxy.tolist()
        assert [person["id"] for person in persons] == result.ids.tolist()
    return lines


def test_the_lines_of_several_people_are_what_python_gives(command, centroid_onnx, tmp_path):
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for step in range(12):
        image = np.zeros((240, 320, 3), np.uint8)
        for left, colour, other in ((40 + 3 * step, 2, 0), (220 - step, 0, 2)):  # red and blue: people for the detector
            image[60:200, left : left + 60, colour] = 255
            image[70:100, left : left + 60, 1] = 150
            image[150:190, left : left + 60, other] = 150
        writer.write(image)
    writer.release()
    detector = write_detector(tmp_path / "people.onnx", "yolox")
    assert command("--source", "clip.avi", "--detector", detector, "--detect-every", "3", "--json", "poses.jsonl") == 0
    frames = list(runtime.Pose(centroid_onnx, detector=detector, detect_every=3).video("clip.avi"))
    lines = same_lines("poses.jsonl", frames)
    assert [[person["id"] for person in line["persons"]] for line in lines] == [[1, 2]] * 12


@pytest.mark.skipif(not REAL_CLIP.is_file(), reason="the clip lies beside some checkouts only")
def test_the_lines_of_a_real_clip_are_what_python_gives():
    with open_source(REAL_CLIP) as whole:
        writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), whole.fps, (768, 432))
        for frame in islice(whole, 60):
            writer.write(frame.image)
    writer.release()
    arguments = ["--source", "clip.avi", "--model", "tiny", "--json", "poses.jsonl", "--no-show", "--threads", "1"]
    assert webcam.main(arguments) == 0
    with runtime.Pose("tiny", threads=1) as pose:
        lines = same_lines("poses.jsonl", pose.video("clip.avi"))
    assert len(lines) == 60 and any(line["persons"] for line in lines)


def test_a_folder_is_saved_as_a_folder_without_its_bad_picture(command, photo, capsys):
    (photo.parent / "broken.jpg").write_bytes(b"broken")
    assert command("--source", photo.parent, "--save", "drawn") == 0
    assert [path.name for path in Path("drawn").iterdir()] == ["photo.png"]
    assert "picture unreadable: 1" in capsys.readouterr().err


def test_pictures_of_the_same_name_are_both_kept(command, photo):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "photo.png").write_bytes(photo.read_bytes())
    assert command("--source", "*/photo.png", "--save", "drawn") == 0
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["1-photo.png", "photo.png"]
    Path("a/2-photo.png").write_bytes(photo.read_bytes())  # the name that the third will get
    assert command("--source", "*[ab]/*photo.png", "--save", "three") == 0
    assert len(list(Path("three").iterdir())) == 3


def test_json_goes_to_standard_output(command, photo, workplace, capsys):
    assert command("--source", photo, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "photo.png"
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--source", "gone.jpg"], 4, "gone.jpg"),
        (["--source", "99"], 4, "camera 99"),
        (["--source", "{photo}", "--model", "gone.onnx"], 3, "gone.onnx"),
        (["--source", "{photo}", "--device", "tpu"], 5, "legal are cpu"),
        (["--source", "{photo}", "--save", "drawn.xyz"], 4, ".xyz"),
        (["--source", "{photo}", "--save", "no/drawn.png"], 4, "no folder no"),
        (["--source", "{photo}", "--save", "{photo}"], 4, "is the source itself"),
        (["--source", "{photo}/..", "--save", "{photo}/.."], 4, "is the source itself"),
        (["--source", "{photo}/..", "--save", "{photo}"], 4, "is the source itself"),
        (["--source", "{photo}/..", "--save", "drawn", "--model", "gone.onnx"], 3, "gone.onnx"),
        (["--source", "{photo}/..", "--save", "drawn.jpg"], 4, "is the name of a file"),
        (["--source", "{photo}", "--detector", "gone.pte"], 3, "run as .onnx and .xml"),
        (["--source", "{photo}", "--json", "no/poses.jsonl"], 4, "no folder no"),
        (["--source", "{photo}", "--json", "{photo}"], 4, "is the source itself"),
        (["--source", "{photo}", "--json", "x.png", "--save", "./x.png"], 4, "is given twice"),
        (["--source", "{photo}", "--json", "/proc/poses.jsonl"], 4, "cannot be written to"),
        (["--source", "{photo}", "--detector", "gone.onnx"], 3, "gone.onnx"),
    ],
)
def test_mistakes_end_in_one_line_and_their_exit_code(command, photo, workplace, capsys, arguments, code, named):
    assert command(*[a.replace("{photo}/..", str(photo.parent)).format(photo=photo) for a in arguments]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and named in captured.err
    assert not list(workplace.iterdir())  # nothing half-written


def test_that_nobody_was_found_is_said(command, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((64, 64, 3), np.uint8))
    assert command("--source", tmp_path / "empty.png", "--save", "drawn.png") == 0
    assert "empty.png: nobody was found" in capsys.readouterr().err


def test_a_video_without_a_display_asks_for_a_file(command, moving_dots, capsys):
    assert command("--source", moving_dots[0]) == 2
    assert "--save FILE or --json FILE" in capsys.readouterr().err


def test_a_second_model_that_is_missing_is_an_error_before_work_starts(centroid_onnx, photo, capsys):
    assert webcam.main(["--model", str(centroid_onnx), "gone.onnx", "--source", str(photo)]) == 3
    assert "gone.onnx: no such artifact" in capsys.readouterr().err


def test_what_a_detector_was_taken_for_is_said(command, photo, tmp_path, capsys):
    detector = write_detector(tmp_path / "who.onnx", "rtmdet")
    assert command("--source", photo, "--detector", detector) == 0
    assert "detector who.onnx: taken for rtmdet by its outputs (1, N, 5) and (1, N)" in capsys.readouterr().err
    assert command("--source", photo, "--detector", detector, "--detector-family", "yolox-mmdeploy") == 0
    assert "detector who.onnx: taken for yolox-mmdeploy" in capsys.readouterr().err
    assert command("--source", photo, "--detector", detector, "--detector-family", "yolo") == 3


def test_a_damaged_model_is_one_line(command, photo, centroid_onnx, capsys):
    centroid_onnx.write_bytes(centroid_onnx.read_bytes()[:-1])
    assert command("--source", photo) == 3
    assert "sha256" in capsys.readouterr().err


def test_debug_shows_where_it_happened(command):
    with pytest.raises(runtime.InputError):
        command("--source", "gone.jpg", "--debug")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"], ["--threads", "0"], ["--threads", "two"], ["--threshold", "high"], ["--threshold", "nan"],
        ["--threshold", "7"], ["--retry", "-3"], ["--retry", "inf"],
        ["--detector-family", "yolox"], ["--detector", "a.onnx", "--detector-family", "ssd"],
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(command, arguments):
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        webcam.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and "examples:" in text and "openvino" not in text and ".xml: cpu, gpu, npu" in text


def interrupted_after(monkeypatch, count, error):
    """Make the n-th JSON line raise."""
    write, calls = recording.JsonRecorder.write, []

    def counted(self, frame, drawn):
        calls.append(frame.index)
        if len(calls) > count:
            raise error
        write(self, frame, drawn)

    monkeypatch.setattr(recording.JsonRecorder, "write", counted)


def test_ctrl_c_keeps_what_was_written_and_ends_with_130(command, moving_dots, workplace, monkeypatch):
    interrupted_after(monkeypatch, 5, KeyboardInterrupt())
    assert command("--source", moving_dots[0], "--save", "drawn.mp4", "--json", "poses.jsonl") == 130
    assert sorted(path.name for path in workplace.iterdir()) == ["drawn.mp4", "poses.jsonl"]
    assert len(list(open_source("drawn.mp4"))) == 6 and len(Path("poses.jsonl").read_text().splitlines()) == 5


def test_an_engine_that_fails_on_the_way_leaves_what_was_written(command, moving_dots, workplace, monkeypatch):
    interrupted_after(monkeypatch, 5, runtime.ModelFileError("broken"))
    assert command("--source", moving_dots[0], "--save", "drawn.mp4", "--json", "poses.jsonl") == 3
    assert len(list(open_source("drawn.mp4"))) == 6 and len(Path("poses.jsonl").read_text().splitlines()) == 5


def test_a_full_disk_is_an_input_error(command, moving_dots, monkeypatch, capsys):
    interrupted_after(monkeypatch, 5, OSError(28, "No space left on device"))
    assert command("--source", moving_dots[0], "--json", "poses.jsonl") == 4
    assert "poses.jsonl: cannot be written: No space left" in capsys.readouterr().err


def test_the_window_shows_every_frame(command, moving_dots, monkeypatch):
    window = FakeWindow(monkeypatch, [])
    assert command("--source", moving_dots[0]) == 0
    assert len(window.shown) == 12


def test_q_quits_and_keeps_the_recording(command, moving_dots, monkeypatch):
    window = FakeWindow(monkeypatch, [(3, "q")])
    assert command("--source", moving_dots[0], "--save", "drawn.mp4") == 0
    assert len(window.shown) == 3 and len(list(open_source("drawn.mp4"))) == 3


def test_space_pauses_and_q_quits_meanwhile(command, moving_dots, monkeypatch):
    window = FakeWindow(monkeypatch, [(1, " "), (1, "q")])
    assert command("--source", moving_dots[0]) == 0
    assert len(window.shown) == 1


def test_no_way_of_naming_the_source_lets_it_be_overwritten(command, moving_dots, photo, workplace, capsys):
    clip = moving_dots[0]
    assert command("--source", f"file://{clip}", "--save", clip) == 4
    Path("linked").mkdir()
    (Path("linked") / "photo.png").symlink_to(photo)
    assert command("--source", "linked", "--save", "linked") == 4
    assert command("--source", "linked", "--save", photo.parent) == 4  # where the link leads to
    Path("alias.avi").hardlink_to(clip)
    assert command("--source", clip, "--save", "alias.avi") == 4
    Path("a%20b.avi").write_bytes(clip.read_bytes())
    assert command("--source", "a%20b.avi", "--save", "a%20b.avi") == 4
    assert capsys.readouterr().err.count("is the source itself") == 5
    for passing in ("partial", "trial"):
        rest = Path(f".drawn.{passing}.avi")
        rest.write_bytes(clip.read_bytes())
        assert command("--source", rest, "--save", "drawn.avi") == 4
        assert rest.read_bytes() == clip.read_bytes()
        assert f"would be written as .drawn.{passing}.avi first, which is the source" in capsys.readouterr().err


def test_the_bar_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    for is_terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr("runtime.progress.DRAW_EVERY_S", 0)
        progress = Progress(4)
        for _ in range(4):
            progress.step()
        progress.finish()
        text = capsys.readouterr().err
        assert text.endswith("frame 4/4, " + text.rsplit("frame 4/4, ", 1)[1]) and text.count("\n") == 1
        assert ("#" * 30 in text and "s left" in text) == is_terminal and (text.count("\r") == 5) == is_terminal
