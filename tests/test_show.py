"""Contact sheets: a row per person, a column per transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from photographs import write_data_set

from runtime.draw import COLOURS_BGR
from runtime.skeleton import COCO_17
from training.criterion import gaussian_heatmaps
from training.data import sheet, show
from training.data.picture import read_image

CELL = np.array((256 + sheet.GAP, 192 + sheet.GAP))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("coco"), 5)


def cell(table, row, column):
    """The image (256, 192, 3) in a row and column of a table."""
    top, left = row * CELL[0] + sheet.TITLE_HEIGHT, column * CELL[1]
    return table[top : top + 256, left : left + 192]


@pytest.mark.parametrize(
    ("arguments", "rows", "columns"),
    [
        (["--count", "3"], 3, 5 + 2),
        (["--count", "9", "--augment", "strong", "--heatmaps"], 5, 9 + 2 + 1),
        (["--augment", "paper,flip=0,erase=0.1", "--heatmaps"], 5, 5 + 2 + 1),
    ],
)
def test_a_row_per_person_and_a_column_per_transform(data, tmp_path, arguments, rows, columns):
    picture = tmp_path / "sheet.png"
    assert show.main(["--data", data, *arguments, "--output", str(picture)]) == 0
    height, width = np.array((rows, columns)) * CELL + (sheet.TITLE_HEIGHT, -sheet.GAP)
    assert read_image(picture).shape == (height, width, 3)


def test_columns_hold_what_their_titles_say(data, tmp_path):
    picture = tmp_path / "sheet.png"
    assert show.main(["--data", data, "--augment", "strong", "--plain", "--output", str(picture)]) == 0
    table = read_image(picture)
    middle = slice(20, 230)  # below the pictures' names nothing but the picture
    for row in range(5):
        plain, *transformed = [cell(table, row, column)[middle].astype(int) for column in range(9)]
        assert np.abs(transformed[2] - plain[:, ::-1]).max() <= 1  # rounding of the warp
        assert np.ptp(transformed[5], axis=2).max() == 0 < np.ptp(plain, axis=2).max()
        for other in (transformed[0], transformed[1], transformed[4], transformed[6]):
            assert (other != plain).any()


def test_rendered_people_have_the_same_table(tmp_path):
    picture = tmp_path / "sheet.png"
    assert show.main(["--augment", "paper", "--count", "1", "--output", str(picture)]) == 0
    assert read_image(picture).shape[1] == 7 * CELL[1] - sheet.GAP


def test_heat_maps_are_brightest_at_the_key_points():
    keypoints = torch.tensor([[[0.25, 0.25], [0.75, 0.5]]])
    maps = gaussian_heatmaps(keypoints, 64, 48)[0].numpy()
    shown = sheet.overlay_heatmaps(np.zeros((256, 192, 3), np.uint8), maps)
    assert (shown[64, 48] > 0).any() and (shown[128, 144] > 0).any() and not shown[200, 20].any()
    red = shown[..., 2].astype(int) - shown[..., 0]
    assert red[64, 48] > 50 and red[128, 144] > 50


def test_skeletons_know_left_from_right():
    points = np.tile((-50.0, -50.0), (17, 1))
    points[COCO_17.index("left_wrist")], points[COCO_17.index("right_wrist")] = (20, 20), (60, 20)
    drawn = sheet.draw_keypoints(np.zeros((40, 80, 3), np.uint8), points, np.full(17, 2))
    assert tuple(drawn[20, 20]) == COLOURS_BGR["left"] and tuple(drawn[20, 60]) == COLOURS_BGR["right"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--augment", "weak"], 2, "unknown augmentation 'weak'; legal are paper, strong"),
        (["--count", "0"], 2, "--count is 0; it must be at least 1"),
        (["--columns", "0", "--augment", "paper"], 2, "legal: at least one of each"),
        (["--data", "nothing"], 4, "nothing"),
    ],
)
def test_errors(tmp_path, capsys, arguments, code, message):
    assert show.main([*arguments, "--output", str(tmp_path / "sheet.png")]) == code
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_rows_titles_and_names_must_fit():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="1 rows, 2 names, 1 titles"):
        sheet.titled_table([[image]], ["a"], ["b", "c"])


def test_contact_sheet_of_augmented_crops(data, tmp_path, capsys):
    picture = tmp_path / "sheet.png"
    assert show.main(["--data", data, "--rendered", "4", "--columns", "2", "--output", str(picture)]) == 0
    assert read_image(picture).shape == (512, 384, 3)
    assert show.main(["--data", "nothing", "--output", str(tmp_path / "none.png")]) == 4
    assert "is not ANN.json:IMAGES" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()


def test_contact_sheet_where_none_can_be_written(tmp_path, capsys, monkeypatch):
    def no_work(*_):
        raise AssertionError("work before the target was checked")

    monkeypatch.setattr(show, "rendered_sheet", no_work)
    for target, message in [("none/x.png", "there is no folder"), ("x.doc", "extension '.doc'"), (".", "is a folder")]:
        assert show.main(["--output", str(tmp_path / target)]) == 4
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
