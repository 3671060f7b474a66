"""How crops vary in training: the paper's recipe, a stronger one, and single knobs on top of either.

The command line writes it NAME[,KNOB=VALUE...]: paper, or strong, or strong,gray=0,scale=0.7..1.3. What the paper does
not have is off in its recipe. Key points follow the geometric knobs and no other: a point under an occluder keeps
its label, because the network must guess hidden points from the body around them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

FACTORS = ("brightness", "contrast", "saturation")
PROBABILITIES = ("flip", "half_body", "gray", "erase", "paste", "empty")


@dataclass(frozen=True)
class Augmentation:
    """The knobs; their defaults are the paper's recipe (section 4.1; half-body crops: its reference [24])."""

    rotation_deg: float = 40.0
    """Uniform in -rotation_deg..rotation_deg."""
    scale: tuple[float, float] = (0.5, 1.5)
    """Uniform factor on the size of the region that the crop shows."""
    shift: float = 0.0
    """The region moves by a uniform share of its sides, -shift..shift, across and down."""
    flip: float = 0.5
    """Probability of mirroring; left and right swap by name."""
    half_body: float = 0.3
    """Probability of showing only the upper or lower body, when that leaves enough labelled points."""
    half_body_min_keypoints: int = 8
    """Labelled points a person must have for that."""
    brightness: float = 0.0
    """All channels times a uniform factor in 1 - brightness..1 + brightness."""
    contrast: float = 0.0
    """Distance to the crop's mean luma times such a factor."""
    saturation: float = 0.0
    """Distance to gray times such a factor."""
    hue_deg: float = 0.0
    """Colours turn around the gray axis, uniform in -hue_deg..hue_deg."""
    gray: float = 0.0
    """Probability of a crop without colours."""
    erase: float = 0.0
    """Probability of rectangles and circles of noise, of the mean colour, or of another piece of the same picture."""
    paste: float = 0.0
    """Probability of things in front of the person, cut from other pictures of the same data."""
    empty: float = 0.0
    """Probability of showing a place of a photograph without anybody instead; there every score should be 0."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0.05 <= low <= high <= 20:
            raise ValueError(f"scale is {low}..{high}; legal: 0.05 <= LOW <= HIGH <= 20")
        for names, limit in ((PROBABILITIES, 1), (FACTORS, 1), (("shift",), 1), (("rotation_deg", "hue_deg"), 180)):
            for name in names:
                if not 0 <= getattr(self, name) <= limit:
                    raise ValueError(f"{name} is {getattr(self, name)}; legal: 0..{limit}")

    @property
    def colours(self) -> bool:
        """Whether it changes colours."""
        return any(getattr(self, name) > 0 for name in (*FACTORS, "hue_deg", "gray"))


PLAIN = Augmentation(rotation_deg=0, scale=(1, 1), flip=0, half_body=0)
"""The crop of the true box, unchanged."""
AUGMENTATIONS = {
    "paper": Augmentation(),
    "strong": Augmentation(
        brightness=0.4, contrast=0.4, saturation=0.4, hue_deg=18, gray=0.1, erase=0.3, paste=0.4
    ),
}  # fmt: skip


def parse_augmentation(text: str) -> Augmentation:
    """Read NAME[,KNOB=VALUE...]; ValueError says what is legal."""
    name, *knobs = text.split(",")
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}; legal are {', '.join(AUGMENTATIONS)}, then ,KNOB=VALUE ...")
    return replace(AUGMENTATIONS[name], **dict(_knob(knob) for knob in knobs))


def each_alone(augmentation: Augmentation) -> dict[str, Augmentation]:
    """Title -> one of its transforms without the others, and certain to happen, in the order they are applied."""
    a = augmentation
    plain = replace(PLAIN, half_body_min_keypoints=a.half_body_min_keypoints)
    low, high = a.scale
    colours: dict[str, Any] = {name: getattr(a, name) for name in (*FACTORS, "hue_deg")}
    chances: dict[str, Any] = {name: float(getattr(a, name) > 0) for name in PROBABILITIES}
    certain = {name: replace(plain, **{name: chance}) for name, chance in chances.items()}
    found = {
        f"rotation +-{a.rotation_deg:g}": replace(plain, rotation_deg=a.rotation_deg),
        f"scale {low:g}..{high:g}": replace(plain, scale=a.scale),
        f"shift +-{a.shift:g}": replace(plain, shift=a.shift),
        "flip": certain["flip"],
        "half body": certain["half_body"],
        "colours": replace(plain, **colours),
        **{name: certain[name] for name in ("gray", "paste", "erase", "empty")},
    }
    return {title: alone for title, alone in found.items() if alone != plain}


def _knob(text: str) -> tuple[str, Any]:
    """KNOB=VALUE as the dataclass takes it."""
    name, equals, value = text.partition("=")
    legal = {field.name: field.default for field in fields(Augmentation)}
    if name not in legal or not equals:
        raise ValueError(f"augmentation knob {text!r} is not KNOB=VALUE with a KNOB of {', '.join(legal)}")
    try:
        if name == "scale":
            low, high = value.split("..")
            return name, (float(low), float(high))
        return name, int(value) if name == "half_body_min_keypoints" else float(value)
    except ValueError as error:
        form = "LOW..HIGH" if name == "scale" else "a number"
        raise ValueError(f"augmentation knob {text!r}: {value!r} is not {form}") from error
