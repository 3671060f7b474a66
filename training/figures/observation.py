"""What a network's decoder looks at, caught from outside: its forward pass knows nothing of it.

Deformable attention is seen by its sampler, which gets all of its inputs; query attention by a forward hook.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tfpose_edge.attention import Sampler, get_sampler
from tfpose_edge.transformer import QueryAttention
from training.predictor import CheckpointPredictor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """What the decoder did on a batch; level and head and point in the network's order."""

    keypoints: Array
    """(B, K, 2), fractions of the crop."""
    reference_points: Array
    """(N_D, B, K, 2), fractions of the crop: where each layer starts to look."""
    positions: Array
    """(N_D, B, K, H, L, P, 2), fractions of the crop: where each layer samples the memory."""
    weights: Array
    """(N_D, B, K, H, L, P), of those samples; they sum to 1 over L and P."""
    query_attention: Array | None
    """(N_D, B, H, K, K) of every query (row) to every query (column); None without q2q attention."""


class Sampled(NamedTuple):
    """The inputs of a sampler, without the value."""

    reference_points: Tensor
    sampling_offsets: Tensor
    attention_logits: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]


class RecordingSampler:
    """Does what `sampler` does, and keeps the inputs of its last `kept` calls."""

    def __init__(self, sampler: Sampler, kept: int | None = None) -> None:
        self.sampler = sampler
        self.calls: deque[Sampled] = deque(maxlen=kept)

    def __call__(
        self, value: Tensor, reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor,
        spatial_shapes: tuple[tuple[int, int], ...],
    ) -> Tensor:  # fmt: skip
        """As `tfpose_edge.attention.samplers` says."""
        self.calls.append(Sampled(reference_points, sampling_offsets, attention_logits, spatial_shapes))
        return self.sampler(value, reference_points, sampling_offsets, attention_logits, spatial_shapes)


class Observer:
    """A checkpoint whose attention is watched.

    Args:
        path: of the checkpoint.
        device: of `training.predictor.DEVICES`.
    Raises:
        ModelFileError: not a checkpoint.
        BackendUnavailable: a device that is unknown or not there.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._recorder = RecordingSampler(get_sampler("grid_sample"))
        self._query_attention: list[Tensor] = []
        predictor = CheckpointPredictor(path, self._recorder, device)  # type: ignore[arg-type]  # any callable samples
        self.model, self.device, self.config = predictor.model, predictor.device, predictor.model.config
        self._recorder.calls = deque(maxlen=self.config.num_decoder_layers)  # the decoder samples after the encoder
        for module in self.model.modules():
            if isinstance(module, QueryAttention):
                module.register_forward_hook(self._keep_weights)

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Observation:
        """Run the network on crops (B, 3, H, W) uint8 RGB."""
        self._query_attention.clear()
        output = self.model(crops.to(self.device).float())
        layers = list(self._recorder.calls)
        shape = (*layers[0].attention_logits.shape[:3], len(self.config.levels), -1)  # (B, K, H, L, P)
        return Observation(
            keypoints=_numpy(output.keypoints),
            reference_points=_numpy(torch.stack([layer.reference_points for layer in layers])),
            positions=_numpy(torch.stack([sampling_positions(layer) for layer in layers])),
            weights=_numpy(torch.stack([layer.attention_logits.softmax(-1).reshape(shape) for layer in layers])),
            query_attention=_numpy(torch.stack(self._query_attention)) if self._query_attention else None,
        )

    def _keep_weights(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._query_attention.append(module.weights(*inputs))


def sampling_positions(sampled: Sampled) -> Tensor:
    """Where samples lie, (B, Q, H, L, P, 2) in fractions of the crop: reference point + offset / size of the level."""
    offsets, shapes = sampled.sampling_offsets, sampled.spatial_shapes
    sizes_wh = torch.tensor([(width, height) for height, width in shapes], dtype=offsets.dtype, device=offsets.device)
    offsets = offsets.reshape(*offsets.shape[:3], len(shapes), -1, 2)  # (B, Q, H, L, P, 2)
    return sampled.reference_points[:, :, None, None, None] + offsets / sizes_wh[:, None]


def _numpy(tensor: Tensor) -> Array:
    return tensor.double().cpu().numpy()  # type: ignore[no-any-return]
