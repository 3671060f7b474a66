"""Leeds Sports Pose and its extension, from joints.mat files with the official layouts."""

from __future__ import annotations

import numpy as np
import pytest
from matlab_files import write_joints
from scipy.io import savemat

from runtime.errors import InputError
from runtime.skeleton import COCO_17, LSP_14
from training.data.reading import load_persons
from training.data.spec import DataSpec

NECK, ANKLE = LSP_14.index("neck"), LSP_14.index("right_ankle")


@pytest.fixture
def rows():
    """(3, 14, 3): three persons in MATLAB's coordinates, third number as the case needs it."""
    rows = np.random.default_rng(0).uniform(1, 200, (3, 14, 3))
    rows[..., 2] = 0
    return rows


def test_official_lsp(tmp_path, rows):
    rows[1, NECK] = (29.75, 143.35, 1)
    write_joints(tmp_path / "joints.mat", rows)
    found = load_persons(DataSpec.parse(f"lsp:{tmp_path}"))
    assert found.names == LSP_14 and found.image_ids == [1, 2, 3]
    assert found.persons[1].image_path == tmp_path / "images" / "im0002.jpg"
    np.testing.assert_allclose(found.persons[1].keypoints_xy[NECK], [29.25, 142.85])
    np.testing.assert_allclose(found.persons[0].keypoints_xy, rows[0, :, :2] - 0.5)
    assert found.persons[1].visible.tolist() == [1 if k == NECK else 2 for k in range(14)]
    low, high = rows[2, :, :2].min(0) - 0.5, rows[2, :, :2].max(0) - 0.5
    margin = 0.1 * (high - low)
    np.testing.assert_allclose(found.persons[2].box_xyxy, [*(low - margin), *(high + margin)])
    assert found.persons[2].area == pytest.approx(0.53 * np.prod(high - low + 2 * margin))


def test_official_lspet(tmp_path, rows):
    rows[..., 2] = 1
    rows[0, ANKLE] = (0, 0, 0)
    write_joints(tmp_path / "joints.mat", rows, extended=True)
    found = load_persons(DataSpec.parse(f"lspet:{tmp_path}:1-2"), COCO_17)
    person = found.persons[0]
    assert person.image_path.name == "im00001.jpg" and found.image_ids == [1, 2] and found.other_image_ids == {3}
    assert person.visible[COCO_17.index("right_ankle")] == 0 and (person.visible == 2).sum() == 11
    place = COCO_17.index("left_knee")
    np.testing.assert_allclose(person.keypoints_xy[place], rows[0, LSP_14.index("left_knee"), :2] - 0.5)
    low, high = rows[0, 1:, :2].min(0) - 0.5, rows[0, 1:, :2].max(0) - 0.5  # (0, 0) does not stretch the box
    np.testing.assert_allclose(person.box_xyxy[:2], low - 0.1 * (high - low))


def test_one_image(tmp_path, rows):
    write_joints(tmp_path / "joints.mat", rows[:1])
    assert len(load_persons(DataSpec.parse(f"lsp:{tmp_path}")).persons) == 1


def test_the_two_layouts_are_not_mixed_up(tmp_path, rows):
    write_joints(tmp_path / "joints.mat", rows)
    with pytest.raises(InputError, match=r"'joints' of lspet must be 14 x 3 x N numbers, is \(3, 14, 3\)"):
        load_persons(DataSpec.parse(f"lspet:{tmp_path}"))
    write_joints(tmp_path / "joints.mat", rows, extended=True)
    with pytest.raises(InputError, match="'joints' of lsp must be 3 x 14 x N numbers"):
        load_persons(DataSpec.parse(f"lsp:{tmp_path}"))


def test_broken_records_and_files(tmp_path, rows):
    rows[1, 3, 0] = np.nan
    write_joints(tmp_path / "joints.mat", rows)
    with pytest.raises(InputError, match=r"1 of 3 records are unusable .*annotation 2: .*42 finite numbers"):
        load_persons(DataSpec.parse(f"lsp:{tmp_path}"))
    with pytest.raises(InputError, match="no images in 7-9; it has 3"):
        load_persons(DataSpec.parse(f"lsp:{tmp_path}:7-9"))
    rows[:, :, 2] = 0
    write_joints(tmp_path / "joints.mat", rows, extended=True)
    with pytest.raises(InputError, match="annotation 1: no key point is labelled"):
        load_persons(DataSpec.parse(f"lspet:{tmp_path}"))
    savemat(tmp_path / "joints.mat", {"joints": "text"})
    with pytest.raises(InputError, match="must be 3 x 14 x N numbers"):
        load_persons(DataSpec.parse(f"lsp:{tmp_path}"))
    with pytest.raises(InputError, match="no such file"):
        load_persons(DataSpec.parse(f"lsp:{tmp_path / 'none'}"))
