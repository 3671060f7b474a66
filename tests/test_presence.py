"""The limit on scores: where it lies, what it is measured on, and that it reaches the runtime."""

from __future__ import annotations

import json

import numpy as np
import pytest
from photographs import write_data_set

import runtime
from converters.presence import FEWEST, presence_score
from training.data import crops
from training.data.calibration import empty_crops
from training.data.reading import load_persons
from training.data.spec import DataSpec

RNG = np.random.default_rng(0)


def scores(count, middle):
    """(count, 17) around a middle."""
    return np.float32(RNG.uniform(middle - 0.1, middle + 0.1, (count, 1)).repeat(17, 1))


def test_it_lies_between_unlikely_people_and_likely_nobodies():
    found = presence_score(scores(2000, 0.7), scores(2000, 0.4))
    assert found == pytest.approx((0.61 + 0.49) / 2, abs=0.01)


@pytest.mark.parametrize(
    ("people", "nobody"), [((FEWEST - 1, 0.7), (50, 0.4)), ((50, 0.7), (FEWEST - 1, 0.4)), ((50, 0.5), (50, 0.5))]
)
def test_chance_and_a_network_that_cannot_tell_give_none(people, nobody):
    assert presence_score(scores(*people), scores(*nobody)) is None


def test_empty_crops_of_a_data_set_show_none_of_its_people(tmp_path, monkeypatch):
    """Every matrix that is used keeps all key points of that picture's people outside."""
    data = write_data_set(tmp_path, 8)
    labelled = load_persons(DataSpec.parse(data)).labelled
    made, matrix_of = [], crops.empty_matrix

    def noted(size_wh, points_xy, others, *rest):
        matrix = matrix_of(size_wh, points_xy, others, *rest)
        made.append((points_xy, matrix))
        return matrix

    monkeypatch.setattr(crops, "empty_matrix", noted)
    found = empty_crops((48, 64), data, 64)
    kept = [(points, matrix) for points, matrix in made if matrix is not None]
    assert found.shape == (len(kept), 3, 64, 48) and found.dtype == np.uint8 and len(made) == len(labelled)
    assert {len(points) for points, _ in made} == {np.count_nonzero(person.visible) for person in labelled}


def test_rendered_pictures_have_empty_places_too():
    found = empty_crops((48, 64), count=24)
    assert 12 < len(found) <= 24 and found.std(axis=(1, 2, 3)).max() > 5
    np.testing.assert_array_equal(found, empty_crops((48, 64), count=24))


@pytest.mark.parametrize(("given", "read"), [(0.57, 0.57), (None, None), ("missing", None)])
def test_the_sidecar_may_hold_it(centroid_onnx, given, read):
    path = centroid_onnx.with_name(centroid_onnx.name + ".json")
    values = json.loads(path.read_text())
    values.pop("presence_score", None)
    if given != "missing":
        values["presence_score"] = given
    path.write_text(json.dumps(values))
    assert runtime.Pose(centroid_onnx).sidecar.presence_score == read


def test_an_illegal_one_is_refused(centroid_onnx):
    path = centroid_onnx.with_name(centroid_onnx.name + ".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"presence_score": 1.5}))
    with pytest.raises(runtime.ModelFileError, match=r"presence_score is 1.5, legal is a number in 0..1 or null"):
        runtime.Pose(centroid_onnx)


def test_the_packaged_model_tells_people_from_nobody():
    """Not one number for all networks: it was measured for this one."""
    from runtime.pose import packaged_model

    assert 0.2 < runtime.Pose(packaged_model()).sidecar.presence_score < 0.8
