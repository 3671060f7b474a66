"""Crops to compare networks on: cut as the runtime cuts, with their truth, and never those that give int8's ranges."""

from __future__ import annotations

import numpy as np
import pytest
from photographs import write_data_set

from runtime import geometry
from runtime.skeleton import COCO_17
from training.data import crops
from training.data.calibration import calibration_crops, choose, subjects
from training.data.picture import read_image
from training.data.reading import load_persons
from training.data.spec import DataSpec


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("coco"))


def test_calibration_crops_are_those_of_the_runtime(data):
    made = calibration_crops((96, 128), 1.25, data, count=4)
    assert made.shape == (4, 3, 128, 96) and made.dtype == np.uint8 and made.flags["C_CONTIGUOUS"]
    person = load_persons(DataSpec.parse(data)).labelled[0]
    matrix = geometry.warp_matrix(*geometry.box_to_center_scale(person.box_xyxy, (96, 128)), (96, 128))
    expected = geometry.warp_image(read_image(person.image_path), matrix, (96, 128))[..., ::-1]
    np.testing.assert_array_equal(made[0].transpose(1, 2, 0), expected)
    rendered = calibration_crops((96, 128), 1.25, count=3)
    assert rendered.shape == (3, 3, 128, 96) and not np.array_equal(rendered[0], rendered[1])


def test_people_to_compare_on_are_not_those_of_the_ranges():
    chosen, rest = choose(100, 64, 64)
    assert len(chosen) == 64 and len(rest) == 36 and set(chosen) | set(rest) == set(range(100))
    assert choose(100, 64, 0) == (chosen, [])
    assert [len(places) for places in choose(1000, 64, 64)] == [64, 64]
    assert choose(70, 64, 64)[1] == [] and choose(5, 64, 64) == (list(range(5)), [])


def test_subjects_come_with_their_truth(data):
    compared, others = subjects((96, 128), 1.25, data, count=3)
    persons = load_persons(DataSpec.parse(data)).labelled
    assert others is None and compared.truth.names == COCO_17
    assert compared.truth.persons[0].annotation_id == persons[0].annotation_id
    np.testing.assert_array_equal(compared.matrices[0], crops.person_matrix(persons[0].box_xyxy, (96, 128), 1.25))
    rendered, others = subjects((96, 128), 1.25, count=2, others=3)
    assert rendered.truth is None and len(others.crops) == 3
    np.testing.assert_array_equal(others.crops, calibration_crops((96, 128), 1.25, count=5)[2:])
