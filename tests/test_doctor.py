"""The report on this machine: every engine, model and camera tried, and none can take it down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import __main__ as commands
from runtime import doctor, trial
from runtime.backends import ENGINES
from runtime.errors import ModelFileError
from runtime.trial import how_it_died, run_child, try_artifact

ROOT = Path(__file__).parent.parent


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Replace the Python that children run by a script."""

    def replace(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return replace


def test_the_report_names_and_tries_everything(centroid_artifacts, tmp_path, capsys):
    """The packaged models, artifacts of three engines, and one that is damaged."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    path = tmp_path / "report.json"
    artifacts = [str(artifact) for artifact in centroid_artifacts.values()]
    assert doctor.main([*artifacts, str(damaged), "--json", str(path)]) == 0
    text, report = capsys.readouterr().out, json.loads(path.read_text())
    assert list(report["engines"]) == [engine.name for engine in ENGINES]
    for name, device in (("onnxruntime", "cpu"), ("openvino", "cpu"), ("executorch", "cpu")):
        engine = report["engines"][name]
        assert device in engine["devices"] and not engine["problem"] and f"engine {name} {engine['version']}" in text
    if sys.platform != "darwin":
        assert report["engines"]["coreml"]["problem"] == "Core ML predicts on macOS only"
    working = [path for path, model in report["models"].items() if model["milliseconds"]]
    assert set(artifacts) < set(working) and any(path.endswith("tiny.onnx") for path in working)
    assert "model damaged.onnx: fails: " in text and "no sidecar" in report["models"][str(damaged)]["problem"]
    assert "threads" in text and ("no cameras" in text or "camera 0" in text)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -SEGV $$", "crashes with SIGSEGV"),
        ("echo some engine said this >&2; exit 7", "crashes with exit code 7 some engine said this"),
        ("echo '{}x'", "crashes with exit code 0"),
        ("sleep 60", "no answer within 1 s"),
        ("""echo '{"problem": "a sentence"}'""", "a sentence"),
    ],
)
def test_a_child_that_dies_or_hangs_is_a_sentence(child, centroid_onnx, script, said):
    child(script)
    with pytest.raises(ModelFileError, match=f"pose.onnx: {said}"):
        try_artifact(centroid_onnx, timeout_s=1)


def test_without_any_engine_the_exit_code_is_5(child, capsys):
    child("kill -ABRT $$")
    assert doctor.main(["--timeout", "5"]) == 5
    assert capsys.readouterr().out.count("fails: crashes with SIGABRT") == len(ENGINES) + len(doctor.packaged_models())


def test_a_python_that_cannot_start_is_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert run_child(["camera", "0"], 5) == ({}, "cannot be tried: No such file or directory")


def test_unknown_signals_are_told_by_their_number():
    assert how_it_died(-11, "") == "crashes with SIGSEGV" and how_it_died(-250, "a\nb") == "crashes with signal 250 b"


def test_cameras_are_tried(monkeypatch):
    monkeypatch.setattr(doctor, "camera_numbers", lambda: [97])
    report = doctor.examine_camera(97)
    assert report["works"] == "" and "camera 97 cannot be opened" in report["problem"]


def test_a_camera_that_works_is_measured(monkeypatch, capsys):
    import cv2
    from cameras import FakeCamera

    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera(("ok", 60)))
    assert trial.main(["camera", "0"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["size_wh"] == [320, 240] and 10 < report["fps"] < 110


def test_the_commands_of_the_package(capsys):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])}
    for arguments, code, said in (
        (["--help"], 0, "doctor   what this machine can run"),
        ([], 2, "error: a command is needed, legal are webcam, doctor"),
        (["camera"], 2, "error: 'camera' is no command, legal are webcam, doctor"),
        (["webcam", "--source", "gone.jpg"], 4, "error: gone.jpg: no such file"),
    ):
        command = [sys.executable, "-m", "runtime", *arguments]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == code and said in run.stdout + run.stderr
    with pytest.raises(SystemExit) as caught:
        commands.main(["doctor", "--help"])
    assert caught.value.code == 0 and "child processes" in capsys.readouterr().out


def test_no_time_at_all_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        commands.main(["doctor", "--timeout", "0"])
    assert caught.value.code == 2 and "--timeout 0: legal are seconds above 0" in capsys.readouterr().err


def test_accelerators_are_tried_and_not_only_listed(child, centroid_onnx):
    """A provider that is built into the engine may still find no driver."""
    engines = {"onnxruntime": {"extension": ".onnx", "devices": ["cpu", "cuda"]}}
    assert doctor.accelerators_for(centroid_onnx, engines) == ["cuda"]
    child("""case "$*" in *cuda*) echo '{"problem": "no driver"}';; *) echo '{"milliseconds": 2.0}';; esac""")
    model = doctor.examine_model(centroid_onnx, ["cuda"], 5)
    assert model["milliseconds"] == 2 and model["accelerators"]["cuda"] == {
        "milliseconds": None,
        "problem": "no driver",
    }
    report = {"engines": {}, "models": {"pose.onnx": model}, "cameras": {}}
    report |= dict.fromkeys(("python", "system", "numpy", "opencv", "threads"), "")
    assert doctor.lines_of(report)[-3:] == [
        "model pose.onnx: works, 2.0 ms a call", "model pose.onnx on cuda: fails: no driver", "no cameras",
    ]  # fmt: skip


def test_a_report_that_cannot_be_written_is_an_error_before_work_starts(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", None)
    assert doctor.main(["--json", "nowhere/report.json"]) == 4
    assert "there is no folder nowhere" in capsys.readouterr().err
