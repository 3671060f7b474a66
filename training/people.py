"""The people that a run learns from, and those that it is measured on."""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import InputError
from tfpose_edge import PoseConfig
from training.data.augmentation import parse_augmentation
from training.data.damage import Damage
from training.data.dataset import JoinedPeople, PhotographedPeople, RenderedPeople
from training.data.persons import Person
from training.data.reading import load_labelled
from training.data.recipe import packed_people, times_per_epoch
from training.data.spec import DataSpec
from training.options import Plan


def data_name(text: str) -> str:
    """DATA without the folders of this machine: set/annotations.json[:FIRST-LAST]."""
    spec = DataSpec.parse(text)
    part = f":{spec.first}-{spec.last or ''}" if spec.last or spec.first > 1 else ""
    return "/".join(spec.annotations.parts[-2:]) + part


def data_names(options: Plan) -> list[str] | str:
    """What a run learns from, for its provenance."""
    if options.recipe:
        return [f"the recipe {options.recipe!r}"]
    return [data_name(text) for text in options.train] or "rendered people"


def training_people(options: Plan, config: PoseConfig, warn: Callable[[str], None]) -> tuple[JoinedPeople, Damage]:
    """Everybody whom the options name, augmented, and what of the data could not be read; `warn` gets a line each."""
    augmentation, seed = parse_augmentation(options.augment), options.seed
    sets, damage = load_labelled(options.train, config.keypoint_names, warn)
    if options.recipe:
        sets = _of_recipe(options, config, warn)
        damage = Damage(sum(map(len, sets)), f"the recipe {options.recipe}", [], warn)
    parts: list[PhotographedPeople | RenderedPeople] = [
        PhotographedPeople(persons, config, augmentation, seed, part) for part, persons in enumerate(sets)
    ]
    if options.rendered and not options.recipe:
        parts.append(RenderedPeople(options.rendered, config, augmentation, seed))
    if not parts:
        raise InputError("nothing to train on: give --train DATA, or --rendered above 0")
    return JoinedPeople(parts), damage


def _of_recipe(options: Plan, config: PoseConfig, warn: Callable[[str], None]) -> list[list[Person]]:
    """The recipe's persons; a source that is shown several times per epoch is there as often."""
    assert options.packed is not None
    sources = packed_people(options.data_root, options.packed, config.keypoint_names, warn, options.rendered)
    return [persons for name, persons in sources.items() for _ in range(times_per_epoch(name))]


def validation_people(
    options: Plan, config: PoseConfig, warn: Callable[[str], None]
) -> tuple[PhotographedPeople | None, Damage]:
    """The people of `--val` in plain crops, None without it; otherwise as `training_people`."""
    sets, damage = load_labelled([options.val] if options.val else [], config.keypoint_names, warn)
    return PhotographedPeople(sets[0], config) if sets else None, damage
