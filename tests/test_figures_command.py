"""The pictures of `python -m training.figures`, what it leaves out, and how it answers what is wrong."""

from __future__ import annotations

import dataclasses
import json

import cv2
import pytest
from drawing import TINY, write_checkpoint, write_run
from photographs import write_data_set

from runtime.errors import InputError
from runtime.skeleton import LSP_14, MPII_16
from training.figures.__main__ import main
from training.figures.observation import Observer
from training.figures.people import People
from training.figures.survey import take_survey


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.safetensors")


def drawn(path):
    """A picture with something on it; its width and height."""
    picture = cv2.imread(str(path))
    assert picture is not None and picture.std() > 10
    return picture.shape[1::-1]


def test_all(tmp_path, checkpoint, data, capsys):
    runs = [str(write_run(tmp_path / "with", True)), str(write_run(tmp_path / "without", False))]
    arguments = ["--data", data, "--output", str(tmp_path / "out"), "--json", str(tmp_path / "out" / "numbers.json")]
    assert main(["all", str(checkpoint), *arguments, "--count", "1", "--runs", *runs, "--labels", "a", "b"]) == 0
    names = [path.rsplit("/", 1)[1] for path in capsys.readouterr().out.split()]
    assert names == [
        *(f"figure-{number:02}.png" for number in range(5, 11)),
        "figure-11-right_shoulder.png", "figure-12-right_knee.png",
    ]  # fmt: skip
    for name in names:
        assert min(drawn(tmp_path / "out" / name)) > 400
    content = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert list(content["attention"]) == ["layer 1", "layer 2", "layer 3", "average of all layers"]
    for part in content["attention"].values():
        assert [sum(row) for row in part["attention"]] == pytest.approx([1] * 17, abs=1e-6)
        assert len(part["strongest"]) == 17


def test_other_skeletons_and_levels(tmp_path, capsys):
    """MPII's points and unknown ones, C4 and C5, data that have some of the points, rank by PCK."""
    config = dataclasses.replace(TINY, keypoint_names=(*MPII_16, "tail"), levels=(4, 5), num_decoder_layers=1)
    path, data = write_checkpoint(tmp_path / "m.safetensors", config), write_data_set(tmp_path / "lsp", 3, LSP_14)
    arguments = [
        str(path),
        "--data",
        data,
        "--output",
        str(tmp_path),
        "--rank-by",
        "pck",
        "--edges",
        "3",
        "--count",
        "1",
    ]
    assert main(["all", *arguments, "--rank-by", "pck", "--keypoints", "tail", "left_knee"]) == 0
    out, err = capsys.readouterr()
    assert [line.rsplit("figure-", 1)[1] for line in out.split()] == [
        "06.png", "08.png", "09.png", "10.png", "11-tail.png", "11-left_knee.png",
    ]  # fmt: skip
    left_out = [line for line in err.splitlines() if "left out" in line]
    assert left_out == [
        "figure 5 left out: needs --runs DIR ..., folders that training.train wrote",
        "figure 7 left out: the network has no level C3; legal for --level are C4, C5",
        "figure 12 left out: the same as figure 11, with --keypoints",
    ]
    assert main(["7", *arguments, "--level", "5"]) == 0
    drawn(tmp_path / "figure-07.png")


def test_without_query_attention(tmp_path, data, capsys):
    path = write_checkpoint(tmp_path / "m.safetensors", dataclasses.replace(TINY, query_self_attention=False))
    arguments = [str(path), "--data", data, "--output", str(tmp_path), "--json", str(tmp_path / "numbers.json")]
    assert main(["all", *arguments, "--count", "1"]) == 0
    out, err = capsys.readouterr()
    assert "figure-10.png" in out and "figure-06.png" not in out
    assert "numbers.json left out: the network was built without query-to-query attention" in err
    assert not (tmp_path / "numbers.json").exists()
    assert main(["6", *arguments]) == 2
    assert "error: figure 6: the network was built without query-to-query" in capsys.readouterr().err


def test_a_run_s_own_checkpoint_has_its_curves(tmp_path, capsys):
    path = write_checkpoint(write_run(tmp_path / "mine", True) / "best.safetensors")
    assert main(["5", str(path), "--output", str(tmp_path)]) == 0
    drawn(tmp_path / "figure-05.png")


def test_pictures_that_cannot_be_read_are_left_out(tmp_path, checkpoint, monkeypatch):
    data = write_data_set(tmp_path / "data", 3)
    (tmp_path / "data" / "images" / "001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1 of 3 persons are unusable .*001\.png"):
        take_survey(Observer(checkpoint), People(data, TINY))
    monkeypatch.setattr("training.data.damage.ALLOWED", 0.5)
    people = People(data, TINY)
    assert [p.annotation_id for p in take_survey(Observer(checkpoint), people).persons] == [100, 102]
    assert len(people.choose(("nose",), 3)) == 2
    assert len(people.damage.problems) == 1 and "001.png" in people.damage.problems[0]


WRONG = [
    (["6", "MODEL", "--data", "nowhere.json:images"], 4, "nowhere.json"),
    (["6", "no.safetensors", "--data", "DATA"], 3, "no such checkpoint"),
    (["5", "--runs", "nowhere"], 4, "nowhere: no run folder"),
    (["5"], 2, "figure 5: needs --runs DIR"),
    (["all"], 2, "nothing to draw"),
    (["7", "MODEL", "--data", "DATA", "--level", "2"], 2, "no level C2; legal for --level are C3, C4, C5"),
    (["11", "MODEL", "--data", "DATA", "--keypoints", "tail"], 2, "unknown key points tail; legal for --keypoints are"),
    (["12", "MODEL", "--data", "DATA", "--layer", "4"], 2, "--layer is 4; the network's decoder layers are 1 to 3"),
    (["10", "MODEL", "--data", "DATA:1-2"], 2, "need 3 persons"),
    (["6", "MODEL", "--data", "DATA", "--device", "tpu"], 5, "runs on cpu or cuda"),
    (["6", "MODEL", "--data", "DATA", "--json", "no/folder.json"], 2, "there is no folder no"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path, checkpoint, data, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    known = [text.replace("MODEL", str(checkpoint)).replace("DATA", data) for text in arguments]
    assert main(known) == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["13"], "invalid choice: '13'"),
        (["6", "model.safetensors"], "figure 6 needs MODEL and --data DATA"),
        (["5", "--runs", "a", "b", "--labels", "one"], "1 --labels for 2 --runs"),
        (["7", "m", "--data", "d", "--json", "f.json"], "--json holds the numbers of figures 6, 8 and 9, not of 7"),
        (["7", "m", "--data", "d", "--count", "0"], "'0' is not an integer of at least 1"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as usage:
        main(arguments)
    assert usage.value.code == 2 and message in capsys.readouterr().err
