"""The people that a run learns from, and those that it is measured on."""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import InputError
from tfpose_edge import PoseConfig
from training.data.augmentation import parse_augmentation
from training.data.damage import Damage
from training.data.dataset import JoinedPeople, PhotographedPeople, RenderedPeople
from training.data.reading import load_labelled
from training.data.spec import DataSpec
from training.options import Plan


def data_name(text: str) -> str:
    """DATA without the folders of this machine: set/annotations.json[:FIRST-LAST]."""
    spec = DataSpec.parse(text)
    part = f":{spec.first}-{spec.last or ''}" if spec.last or spec.first > 1 else ""
    return "/".join(spec.annotations.parts[-2:]) + part


def training_people(options: Plan, config: PoseConfig, warn: Callable[[str], None]) -> tuple[JoinedPeople, Damage]:
    augmentation, seed = parse_augmentation(options.augment), options.seed
    sets, damage = load_labelled(options.train, config.keypoint_names, warn)
    parts: list[PhotographedPeople | RenderedPeople] = [
        PhotographedPeople(persons, config, augmentation, seed) for persons in sets
    ]
    if options.rendered:
        parts.append(RenderedPeople(options.rendered, config, augmentation, seed))
    if not parts:
        raise InputError("nothing to train on: give --train DATA, or --rendered above 0")
    return JoinedPeople(parts), damage


def validation_people(
    options: Plan, config: PoseConfig, warn: Callable[[str], None]
) -> tuple[PhotographedPeople | None, Damage]:
    sets, damage = load_labelled([options.val] if options.val else [], config.keypoint_names, warn)
    return PhotographedPeople(sets[0], config) if sets else None, damage
