"""Images and boxes of every kind: the right answer, or an error that names what was given."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.inputs import check_boxes, check_image

BGR = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
GRAY = BGR[:, :, 0]
SIZE_WH = (8, 6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (BGR, BGR),
        (GRAY, np.dstack([GRAY] * 3)),
        (GRAY[:, :, None], np.dstack([GRAY] * 3)),
        (np.dstack([BGR, GRAY]), BGR),
        (BGR.astype(np.uint16) * 257, BGR),
        (GRAY.astype(np.uint16) << 8, np.dstack([GRAY] * 3)),
        (BGR[::-1, ::2], BGR[::-1, ::2]),
        (BGR.transpose(1, 0, 2), BGR.transpose(1, 0, 2)),
        (np.asfortranarray(GRAY), np.dstack([GRAY] * 3)),
    ],
    ids=["bgr", "gray", "gray1", "bgra", "uint16", "gray16", "strided", "transposed", "fortran"],
)
def test_legal_images_become_bgr(given, expected):
    image = check_image(given)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "cv2.imread"),
        ("photo.jpg", "str"),
        ([[1, 2], [3, 4]], "list"),
        (BGR / 255, "float64"),
        (BGR.astype(np.int32), "int32"),
        (BGR > 3, "bool"),
        (np.zeros((6, 8, 2), np.uint8), r"\(6, 8, 2\)"),
        (np.zeros((1, 6, 8, 3), np.uint8), r"\(1, 6, 8, 3\)"),
        (np.zeros(8, np.uint8), r"\(8,\)"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 0), np.uint8), "no pixels"),
    ],
)
def test_other_images_are_refused_by_name(given, named):
    with pytest.raises(InputError, match=named):
        check_image(given)


def test_no_boxes_given_is_the_whole_image():
    np.testing.assert_array_equal(check_boxes(None, SIZE_WH), [[0, 0, 8, 6]])


@pytest.mark.parametrize("given", [[], np.zeros((0, 4))])
def test_empty_boxes_are_no_box(given):
    assert check_boxes(given, SIZE_WH).shape == (0, 4)


def test_boxes_partly_outside_are_kept():
    np.testing.assert_array_equal(check_boxes([[-3, -2, 4, 9]], SIZE_WH), [[-3, -2, 4, 9]])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ([np.nan, 0, 4, 4], "not finite"),
        ([0, 0, np.inf, 4], "not finite"),
        ([4, 0, 1, 4], "inverted"),
        ([0, 4, 4, 4], "inverted or empty"),
        ([8, 0, 12, 4], "outside the image of 8 x 6"),
        ([-5, -5, 0, 3], "outside the image"),
        ([0, 0, 1e7, 1], "further than"),
        ([0, 0, 1e-9, 1e-9], "smaller than a pixel"),
    ],
)
def test_a_bad_box_is_refused_with_its_row(row, named):
    with pytest.raises(InputError, match=rf"boxes_xyxy\[1\].*{named}"):
        check_boxes([[0, 0, 4, 4], row], SIZE_WH)


@pytest.mark.parametrize("given", [[1, 2, 3, 4], [[1, 2, 3]], "box", [[1, 2, 3, "x"]], [[1, 2, 3, 4], [1, 2]], {}, 7])
def test_boxes_of_another_form_are_refused(given):
    with pytest.raises(InputError, match="boxes_xyxy"):
        check_boxes(given, SIZE_WH)
