"""Rewrites of the decoder: few queries, which start at learned constants, look into a large memory."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from converters.placed import PlacedSampler
from converters.rewrites.encoder import linear, placed_parameters
from tfpose_edge import TFPose
from tfpose_edge.attention import DeformableAttention, SampleThenProject
from tfpose_edge.transformer import DecoderLayer, QueryAttention

if TYPE_CHECKING:
    from converters.graph import ExportGraph


def sample_then_project(graph: ExportGraph) -> None:
    """Let each decoder layer project its few samples and not the whole memory.

    Sampling is linear: `sample(W m + b) = W sample(m) + b (share of the attention inside the image)`.
    """
    for layer in graph.network.decoder:
        plain = cast(DeformableAttention, layer.attention)
        sizes = (plain.value_proj.in_features, plain.n_heads, plain.n_levels, plain.n_points)
        with torch.device("meta"):  # the parameters are the plain layer's
            layer.attention = SampleThenProject(*sizes, plain.sampler)
        for name, part in plain.named_children():
            layer.attention.add_module(name, part)


class QueryPlaces(nn.Module):
    """Sample, then project, in pixels: positions and logits of all queries are one matmul.

    Args:
        plain: the layer's attention, whose parameters these are.
        sampler: of the memory, every head of every query being a query of its own.
    """

    value_bias: Tensor

    def __init__(self, plain: SampleThenProject, sampler: PlacedSampler) -> None:
        super().__init__()
        self.n_heads, self.sampler = plain.n_heads, sampler
        self.output_proj = plain.output_proj
        placed = placed_parameters(plain)
        biases = [bias - (0.5 if name != "logits" else 0) for name, (_, bias) in placed.items()]
        self.places = linear(torch.cat([weight for weight, _ in placed.values()]), torch.cat(biases))
        weight = plain.value_proj.weight.unflatten(0, (self.n_heads, -1))  # (H, D, C)
        self.register_buffer("value_weight", weight.transpose(1, 2).contiguous())
        self.register_buffer("value_bias", plain.value_proj.bias.reshape(self.n_heads, -1).clone())

    def forward(self, query: Tensor, reference_points: Tensor, memory: Tensor, spatial_shapes: object) -> Tensor:
        """As `DeformableAttention.forward`."""
        places = self.positions(query, reference_points)
        plan = self.sampler.plan(*places)
        return self.from_plan(memory, plan, self.sampler.inside(*places, plan))

    def positions(self, query: Tensor, reference_points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and logits (B, K * H, 1, L * P) of queries (B, K, C)."""
        x, y, logits = self.places(query).unflatten(-1, (3, self.n_heads, -1)).unbind(2)  # (B, K, H, L * P)
        reference = reference_points[:, :, None]  # (B, K, 1, 2)
        x = x + reference[..., :1] * self.sampler.width
        y = y + reference[..., 1:] * self.sampler.height
        return x.flatten(1, 2)[:, :, None], y.flatten(1, 2)[:, :, None], logits.flatten(1, 2)[:, :, None]

    def from_plan(self, memory: Tensor, plan: tuple[Tensor, ...], inside: Tensor) -> Tensor:
        """Memory (B, S, C) by a plan, the share of attention inside (B, K * H, 1) -> (B, K, C)."""
        batch, _, channels = memory.shape
        sampled = self.sampler(memory[:, :, None], *plan)  # (B, K * H, C)
        sampled = sampled.reshape(-1, self.n_heads, channels).transpose(0, 1)  # (H, B * K, C)
        projected = (sampled @ self.value_weight).transpose(0, 1)  # (B * K, H, D)
        biased = projected + inside.reshape(-1, self.n_heads, 1) * self.value_bias
        return self.output_proj(biased.reshape(batch, -1, channels))  # type: ignore[no-any-return]


def place_samples(graph: ExportGraph) -> None:
    """Positions and logits of a decoder layer in one matmul, in pixels; only after `sample_then_project`."""
    for layer in graph.network.decoder:
        if isinstance(layer.attention, SampleThenProject):
            layer.attention = QueryPlaces(layer.attention, graph.placed(1))


class OneQueryProjection(nn.Module):
    """q2q attention whose queries, keys and values are one matmul; the queries' positions are a constant of it."""

    def __init__(self, plain: QueryAttention, query_pos: Tensor) -> None:
        super().__init__()
        self.n_heads, self.out_proj = plain.n_heads, plain.out_proj
        scale = (query_pos.shape[1] // plain.n_heads) ** -0.5
        scales = ((plain.q_proj, scale), (plain.k_proj, 1.0), (plain.v_proj, 1.0))
        self.projection = linear(torch.cat([layer.weight * by for layer, by in scales]))
        placed = (query_pos.double() @ layer.weight.double().T * (layer is not plain.v_proj) for layer, _ in scales)
        constants = [(p + layer.bias.double()) * by for p, (layer, by) in zip(placed, scales, strict=True)]
        self.register_buffer("constant", torch.cat(constants, dim=1).float())  # (K, 3 * C)

    def forward(self, query: Tensor, query_pos: Tensor) -> Tensor:
        """query (B, K, C) -> (B, K, C); the positions are inside."""
        projected = self.projection(query) + self.constant
        q, k, v = (self._heads(part) for part in projected.chunk(3, dim=-1))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v  # (B, H, K, D)
        return self.out_proj(mixed.transpose(1, 2).reshape(query.shape))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def merge_query_projections(graph: ExportGraph) -> None:
    """One matmul for queries, keys and values of q2q attention: W (q + R) = W q + W R, and R is learned."""
    for layer in graph.network.decoder:
        plain = layer.query_attention
        if plain is not None:
            layer.query_attention = OneQueryProjection(cast(QueryAttention, plain), graph.network.query_pos.data)


class FirstLayer(nn.Module):
    """A decoder layer whose queries are constants: its samples lie at constant places, with constant weights."""

    query: Tensor
    inside: Tensor

    def __init__(self, layer: DecoderLayer, network: TFPose) -> None:
        super().__init__()
        self.attention, self.norm, self.ffn = cast(QueryPlaces, layer.attention), layer.norm, layer.ffn
        query, query_pos = network.query_embed[None], network.query_pos[None]
        reference_points = network.reference_logits[None].sigmoid()
        if layer.query_attention is not None and layer.query_norm is not None:
            query = layer.query_norm(query + layer.query_attention(query, query_pos))
        self.register_buffer("query", query.clone())
        places = self.attention.positions(query + query_pos, reference_points)
        plan = self.attention.sampler.plan(*places)
        self.register_buffer("inside", self.attention.sampler.inside(*places, plan))
        self.n_parts = len(plan)
        for i, part in enumerate(plan):
            self.register_buffer(f"plan_{i}", part.clone())

    def forward(
        self, query: Tensor, query_pos: Tensor, reference_points: Tensor, memory: Tensor, spatial_shapes: object
    ) -> Tensor:
        """Memory (B, S, C) -> queries (B, K, C)."""
        plan = tuple(getattr(self, f"plan_{i}") for i in range(self.n_parts))
        images = [self.attention.from_plan(image[None], plan, self.inside) for image in memory.unbind()]
        attended = images[0] if len(images) == 1 else torch.cat(images)
        return self.ffn(self.norm(self.query + attended))  # type: ignore[no-any-return]


@torch.no_grad()
def fold_first_layer(graph: ExportGraph) -> None:
    """Compute at conversion what of the first layer depends on learned constants only; after `place_samples`."""
    layer = cast(DecoderLayer, graph.network.decoder[0])
    if isinstance(layer.attention, QueryPlaces):
        graph.network.decoder[0] = FirstLayer(layer, graph.network)


def last_layer_only(graph: ExportGraph) -> None:
    """Key points of the last layer only, and each layer's reference points once."""
    graph.decode = functools.partial(decode_last, graph.network)


def decode_last(network: TFPose, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Memory (B, S, C) -> key points (B, K, 2) in fractions of the crop, and last queries (B, K, C)."""
    batch = memory.shape[0]
    learned = (network.query_embed, network.query_pos, network.reference_logits)
    query, query_pos, logits = (constant.expand(batch, -1, -1) for constant in learned)
    keypoints = logits.sigmoid()
    for layer, head in zip(network.decoder, network.keypoint_heads, strict=True):
        query = layer(query, query_pos, keypoints, memory, network.config.spatial_shapes)
        logits = logits + head(query)  # eq. 4
        keypoints = logits.sigmoid()
    return keypoints, query
