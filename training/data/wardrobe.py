"""How a rendered person looks: body proportions, skin, hair and clothes drawn at random."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

import cv2
import numpy as np

from training.data.painting import TILE_PX, Material, Plane

SKIN_TONES = np.array([(190, 210, 242), (150, 182, 230), (110, 150, 205), (70, 105, 165), (45, 68, 115), (30, 42, 72)])
HAIR_COLOURS = np.array([(20, 20, 24), (28, 38, 58), (40, 70, 110), (90, 150, 195), (40, 75, 150), (170, 170, 175)])
GRAYS = (25, 60, 120, 190, 240)
LEGWEAR = ("trousers", "shorts", "skirt", "dress")
HAIR_STYLES = ("short", "long", "bald", "hat")


@dataclass(frozen=True)
class Appearance:
    """Everything about a person but the posture."""

    skin: Material
    hair: Material
    shirt: Material
    legs: Material
    shoes: Material
    accent: Plane
    """Colour (3,) of hat, glasses and bag."""
    hair_style: str
    hair_volume: float
    """Size of the hair against the skull's."""
    legwear: str
    sleeve: float
    """Length of the sleeves in bones from the shoulder: 0 none, 0.5 short, 2 to the wrist."""
    leg_length: float
    """Length of what covers the legs, in bones from the hip: 2 to the ankle."""
    stoutness: float
    head_scale: float
    arm_scale: float
    leg_scale: float
    beard: float
    """Opacity 0..1."""
    glasses: bool
    jacket: bool


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """A person from all over the world on any day of the year."""
    child = rng.random() < 0.12
    style = HAIR_STYLES[_pick(rng, (0.48, 0.76, 0.84))]
    legwear = LEGWEAR[_pick(rng, (0.62, 0.84, 0.92))]
    skin = _between(rng, SKIN_TONES) * rng.uniform(0.93, 1.07, 3)
    hair = _plain(np.clip(_between(rng, HAIR_COLOURS) * rng.uniform(0.8, 1.2), 0, 255))
    shirt = sample_cloth(rng)
    return Appearance(
        skin=_plain(np.clip(skin, 0, 250)),
        hair=hair,
        shirt=shirt,
        legs=shirt if rng.random() < 0.08 or legwear == "dress" else sample_cloth(rng, patterned=0.25),
        shoes=sample_cloth(rng, patterned=0.1).darker(rng.uniform(0.4, 1.0)),
        accent=_colour(rng),
        hair_style=style,
        hair_volume=float(rng.uniform(1.04, 1.12) if rng.random() < 0.7 else rng.uniform(1.12, 1.35)),
        legwear=legwear,
        sleeve=(0.0, rng.uniform(0.4, 0.7), rng.uniform(1.3, 1.7), 1.95)[_pick(rng, (0.13, 0.5, 0.6))],
        leg_length=_leg_length(rng, legwear),
        stoutness=float(np.clip(rng.normal(1.0, 0.16), 0.78, 1.5)),
        head_scale=float(rng.uniform(1.2, 1.4) if child else rng.uniform(0.98, 1.16)),
        arm_scale=float(rng.uniform(0.94, 1.06)),
        leg_scale=float(rng.uniform(0.8, 0.92) if child else rng.uniform(0.93, 1.08)),
        beard=float(rng.uniform(0.3, 0.9)) if style != "long" and not child and rng.random() < 0.3 else 0.0,
        glasses=bool(rng.random() < 0.15),
        jacket=bool(rng.random() < 0.12),
    )


def sample_cloth(rng: np.random.Generator, patterned: float = 0.5) -> Material:
    """A plain cloth or, with probability `patterned`, two colours in a pattern."""
    first, second = _colour(rng), _colour(rng)
    if rng.random() > patterned:
        return Material(first, second)
    if rng.random() < 0.5:
        second = np.clip(first * np.float32(rng.uniform(0.5, 1.6)), 0, 255)
    return Material(first, second, sample_pattern(rng))


def sample_pattern(rng: np.random.Generator) -> Plane:
    """A tile (TILE_PX, TILE_PX) in 0..1 that repeats without a seam: stripes, checks, dots, blotches or folds."""
    kind, waves = rng.integers(6), rng.integers(1, 9)
    ramp = np.arange(TILE_PX, dtype=np.float32) * np.float32(2 * np.pi * waves / TILE_PX)
    down, across = np.sin(ramp)[:, None], np.sin(ramp)[None, :]
    if kind == 0:
        return np.repeat((down > rng.uniform(-0.7, 0.7)).astype(np.float32), TILE_PX, axis=1)
    if kind == 1:
        return np.repeat((across > rng.uniform(-0.7, 0.7)).astype(np.float32), TILE_PX, axis=0)
    if kind == 2:
        return ((down > 0).astype(np.float32) + (across > 0).astype(np.float32)) * np.float32(0.5)
    if kind == 3:
        return (down + across > rng.uniform(0.6, 1.4)).astype(np.float32)
    cells = int(rng.integers(4, 16))
    noise = cv2.resize(rng.random((cells, cells), dtype=np.float32), (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
    return np.clip(noise, 0, 1) if kind == 4 else (noise > 0.5).astype(np.float32)


def _pick(rng: np.random.Generator, cumulative: tuple[float, ...]) -> int:
    """An index with the probabilities between `cumulative` bounds; the last one takes the rest."""
    return bisect(cumulative, rng.random())


def _leg_length(rng: np.random.Generator, legwear: str) -> float:
    low, high = {"trousers": (1.75, 2.0), "shorts": (0.45, 0.95), "skirt": (0.5, 1.5), "dress": (0.6, 1.8)}[legwear]
    return float(rng.uniform(low, high))


def _plain(colour: Plane) -> Material:
    colour = colour.astype(np.float32)
    return Material(colour, colour)


def _between(rng: np.random.Generator, palette: Plane) -> Plane:
    """A colour on the polygon through the palette's colours."""
    position = rng.uniform(0, len(palette) - 1.001)
    index, share = int(position), position % 1.0
    return (1 - share) * palette[index] + share * palette[index + 1]


def _colour(rng: np.random.Generator) -> Plane:
    """Any cloth colour BGR (3,); black, white, gray and navy more often than the rainbow."""
    if rng.random() < 0.4:
        return np.clip(GRAYS[rng.integers(5)] + rng.normal(0, 8, 3), 5, 250).astype(np.float32)
    if rng.random() < 0.25:
        return (np.array((95, 60, 45)) * rng.uniform(0.5, 1.8)).astype(np.float32)  # denim
    return (rng.uniform(0.15, 1.0) * rng.permutation((250, rng.uniform(20, 250), rng.uniform(20, 120)))).astype(
        np.float32
    )
