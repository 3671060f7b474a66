"""Key-point sets: pairs, orders and limbs by name."""

from __future__ import annotations

import numpy as np
import pytest

from runtime import skeleton

SETS = {"coco": skeleton.COCO_17, "lsp": skeleton.LSP_14, "mpii": skeleton.MPII_16}


@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_flip_order_swaps_sides_and_is_its_own_inverse(names):
    order = skeleton.flip_order(names)
    for index, name in enumerate(names):
        swapped = name.replace("left_", "R_").replace("right_", "left_").replace("R_", "right_")
        assert names[order[index]] == swapped
    assert [order[i] for i in order] == list(range(len(names)))


def test_coco_flip_pairs_are_the_known_ones():
    expected = [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]
    assert skeleton.flip_pairs(skeleton.COCO_17) == expected


def test_coco_sigmas_are_cocos_own():
    expected = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
    np.testing.assert_allclose(skeleton.sigmas(skeleton.COCO_17), expected)


def test_an_unknown_name_takes_the_default_sigma():
    assert skeleton.sigmas(["tail"]) == [skeleton.DEFAULT_SIGMA]


@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_every_key_point_is_the_end_of_a_limb(names):
    assert {end for limb in skeleton.limbs(names) for end in limb} == set(range(len(names)))


def test_every_limb_stays_on_one_side_or_joins_mirrored_points():
    for a, b in skeleton.LIMBS:
        sides = {part.split("_")[0] for part in (a, b)} & {"left", "right"}
        assert len(sides) < 2 or a.split("_", 1)[1] == b.split("_", 1)[1]
