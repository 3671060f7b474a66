"""A small prior over human postures in the picture plane, COCO-17 order.

A mixture of low-rank Gaussians over body-normalised key points, fitted to the COCO train2017 key-point annotations
(CC BY 4.0) by `python -m training.data.posture --fit POSES.npz`. Body units are about one metre: x to the right,
y down, origin between the hips.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.skeleton import COCO_17, flip_order

Array = NDArray[np.float64]

PRIOR_FILE = Path(__file__).with_name("posture_prior.npz")
BONES = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16), (5, 11), (6, 12), (5, 6), (11, 12))
BONE_LENGTHS = np.array([0.29, 0.25, 0.29, 0.25, 0.43, 0.42, 0.43, 0.42, 0.50, 0.50, 0.35, 0.24])  # body units
LONGEST, SHORTEST_TORSO, LOPSIDED = 1.3, 0.45, 1.9  # limits of a plausible posture, as factors of BONE_LENGTHS
COMPONENTS, RANK, DENSITY_POWER = 288, 6, 0.75  # a power below 1 makes rare postures (sports) less rare
FLIP = flip_order(COCO_17)


def bone_lengths(keypoints: Array) -> Array:
    """Lengths (..., 12) of `BONES` in the units of keypoints (..., 17, 2)."""
    starts, ends = np.array(BONES).T
    return np.linalg.norm(keypoints[..., starts, :] - keypoints[..., ends, :], axis=-1)


def faces_camera(keypoints: Array) -> NDArray[np.bool_]:
    """Whether the chest is towards the camera: the body's left is on the right of its spine; (..., 17, 2) to (...)."""
    across = keypoints[..., 5, :] + keypoints[..., 11, :] - keypoints[..., 6, :] - keypoints[..., 12, :]
    down = keypoints[..., 11:13, :].sum(-2) - keypoints[..., 5:7, :].sum(-2)
    return across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] > 0


def is_plausible(keypoints: Array) -> NDArray[np.bool_]:
    """Whether limbs and head have human lengths; (..., 17, 2) in body units to (...)."""
    ratios = bone_lengths(keypoints) / BONE_LENGTHS
    left, right = ratios[..., [4, 5, 8]], ratios[..., [6, 7, 9]]
    lopsided = np.maximum(left, right) > LOPSIDED * np.minimum(left, right) + 0.25
    head = np.linalg.norm(keypoints[..., :5, :].mean(-2) - keypoints[..., 5:7, :].mean(-2), axis=-1)
    face = np.ptp(keypoints[..., :5, :], axis=-2).max(-1)
    torso = np.minimum(ratios[..., 8], ratios[..., 9])
    fits = (ratios.max(-1) < LONGEST) & (torso > SHORTEST_TORSO) & ~lopsided.any(-1)
    return fits & (head > 0.12) & (head < 0.42) & (face < 0.26)


def sample_posture(rng: np.random.Generator, back_probability: float = 0.2) -> Array:
    """Key points (17, 2) of a random plausible posture in body units; half of them mirrored, some seen from behind."""
    prior = _load_prior()
    for _ in range(64):
        component = int(np.searchsorted(prior["cumulative"], rng.random()).clip(0, COMPONENTS - 1))
        offset = rng.standard_normal(RANK) @ prior["factors"][component]
        offset += 0.5 * rng.standard_normal(34) * prior["residual"][component]
        keypoints = prior["means"][component] + offset.reshape(17, 2)
        if is_plausible(keypoints):
            break
    else:
        keypoints = prior["means"][component].copy()
    if rng.random() < 0.5:
        keypoints = keypoints[FLIP] * (-1, 1)
    return keypoints * (-1, 1) if rng.random() < back_probability else keypoints


def normalise(keypoints: Array) -> Array:
    """Bring postures (N, 17, 2) of any unit to body units; the three relatively longest bones set the scale."""
    ratios = np.sort(bone_lengths(keypoints) / BONE_LENGTHS, axis=-1)
    scale = ratios[:, -4:-1].mean(-1)
    return (keypoints - keypoints[:, 11:13].mean(1, keepdims=True)) / scale[:, None, None]


def read_postures(path: Path, count: int, seed: int = 0) -> Array:
    """Plausible postures (N, 17, 2) in body units, seen from the front, of `count` people drawn from a file of labels.

    Args:
        path: .npz with `keypoints` (M, 17, 3) in px, COCO's order and visibility.
        count: how many of the M are looked at; fewer are labelled well enough.
        seed: of the draw.
    """
    with np.load(path) as stored:
        labels = stored["keypoints"]
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    return _training_postures(labels[chosen])


def fit_prior(labels: Array, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Fit the mixture to labels (N, 17, 3) in px, COCO's visibility last; returns the arrays of the file."""
    postures = _training_postures(labels)
    rng = np.random.default_rng(seed)
    members = _cluster(postures.reshape(-1, 34), COMPONENTS, rng)
    fitted = [_fit_component(postures.reshape(-1, 34)[members == index]) for index in range(COMPONENTS)]
    means, factors, residual = (np.stack(parts) for parts in zip(*fitted, strict=True))
    weights = np.bincount(members, minlength=COMPONENTS) ** DENSITY_POWER
    return {
        "means": means.astype(np.float16),
        "factors": np.round(factors * 500).clip(-127, 127).astype(np.int8),  # steps of 2 mm
        "residual": residual.astype(np.float16),
        "weights": (weights / weights.sum()).astype(np.float32),
    }


@lru_cache(maxsize=1)
def _load_prior() -> dict[str, Array]:
    with np.load(PRIOR_FILE) as stored:
        return {
            "means": stored["means"].astype(np.float64).reshape(-1, 17, 2),
            "factors": stored["factors"].astype(np.float64) / 500,
            "residual": stored["residual"].astype(np.float64),
            "cumulative": np.cumsum(stored["weights"], dtype=np.float64),
        }


def _training_postures(labels: Array) -> Array:
    """Normalised postures seen from the front; a hidden eye or ear is borrowed from the most alike complete face."""
    labelled = labels[..., 2] > 0
    enough = labelled[:, 5:].all(1) & labelled[:, 0] & labelled[:, 1:3].any(1) & labelled[:, 3:5].any(1)
    large = np.ptp(labels[:, 5:, 1], axis=1) > 100  # px: small people are labelled coarsely
    labels, labelled = labels[enough & large].astype(np.float64), labelled[enough & large]
    postures = normalise(labels[..., :2])
    complete = postures[labelled.all(1)][:, :5]
    for index in np.flatnonzero(~labelled.all(1)):
        known = labelled[index, :5]
        centre = postures[index, :5][known].mean(0)
        donors = complete - complete[:, known].mean(1, keepdims=True)
        best = np.square(donors[:, known] - (postures[index, :5][known] - centre)).sum((1, 2)).argmin()
        postures[index, :5][~known] = donors[best][~known] + centre
    return postures[is_plausible(postures) & faces_camera(postures)]


def _cluster(vectors: Array, count: int, rng: np.random.Generator, rounds: int = 25) -> NDArray[np.int64]:
    """k-means: the cluster (N,) of each vector (N, D); clusters that run low restart at random vectors."""
    centers = vectors[rng.choice(len(vectors), count, replace=False)]
    for _ in range(rounds):
        distances = np.square(centers).sum(1) - 2 * vectors @ centers.T
        members = distances.argmin(1)
        sizes = np.bincount(members, minlength=count)
        sums = np.zeros_like(centers)
        np.add.at(sums, members, vectors)
        restart = vectors[rng.choice(len(vectors), count, replace=False)]
        centers = np.where(sizes[:, None] >= 3 * RANK, sums / np.maximum(sizes, 1)[:, None], restart)
    return (np.square(centers).sum(1) - 2 * vectors @ centers.T).argmin(1)


def _fit_component(vectors: Array) -> tuple[Array, Array, Array]:
    """Mean (34,), factors (RANK, 34) and residual deviation (34,) of one cluster (n, 34)."""
    mean = vectors.mean(0)
    _, deviations, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    factors = np.zeros((RANK, vectors.shape[1]))
    kept = min(RANK, len(deviations))
    factors[:kept] = directions[:kept] * deviations[:kept, None] / np.sqrt(len(vectors))
    residual = np.sqrt(np.maximum(vectors.var(0) - np.square(factors).sum(0), 0.0))
    return mean, factors, residual


def main() -> None:
    """Fit the prior to a file of postures: the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.data.posture", description=__doc__)
    parser.add_argument("--fit", required=True, metavar="POSES.npz", help="holds `keypoints` (N, 17, 3): x, y, v in px")
    parser.add_argument("--output", default=PRIOR_FILE, type=Path, help="default: the file beside this module")
    arguments = parser.parse_args()
    with np.load(arguments.fit) as poses:
        prior = fit_prior(poses["keypoints"])
    np.savez_compressed(arguments.output, allow_pickle=False, **prior)
    print(f"{arguments.output}: {COMPONENTS} components, {arguments.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
