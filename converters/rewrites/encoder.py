"""Rewrites of the encoder, whose queries are the memory's own pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from converters.placed import PlacedSampler
from tfpose_edge.attention import DeformableAttention
from tfpose_edge.transformer import EncoderLayer

if TYPE_CHECKING:
    from converters.graph import ExportGraph

PARTS = ("x", "y", "logits")


class PixelAttention(nn.Module):
    """p2p attention at constant reference points: positions in pixels straight from a matmul of the memory.

    With R a pixel's position term and r its reference point, `x = r W_l - 0.5 + W_x (m + R) + b_x` is `W_x m` and a
    constant of that pixel; so are y and the logits.

    Args:
        plain: the layer's attention, whose parameters these are.
        pos: position terms (S, C).
        reference_points: (S, 2), in fractions of the crop.
        sampler: takes its values.
    """

    def __init__(
        self, plain: DeformableAttention, pos: Tensor, reference_points: Tensor, sampler: PlacedSampler
    ) -> None:
        super().__init__()
        self.n_heads, self.sampler = plain.n_heads, sampler
        self.value_proj, self.output_proj = plain.value_proj, plain.output_proj
        placed = placed_parameters(plain)
        width, height = (size.double().repeat(plain.n_heads) for size in (sampler.width, sampler.height))
        origin = {
            "x": reference_points[:, :1].double() * width - 0.5,
            "y": reference_points[:, 1:].double() * height - 0.5,
            "logits": torch.zeros((), dtype=torch.float64),
        }
        self.projections = nn.ModuleDict()
        for name, (weight, bias) in placed.items():
            self.projections[name] = linear(weight)
            constant = origin[name] + pos.double() @ weight.double().T + bias.double()  # (S, H * L * P)
            self.register_buffer(f"constant_{name}", constant.float())

    def forward(self, query: Tensor, reference_points: Tensor, memory: Tensor, spatial_shapes: object) -> Tensor:
        """memory (B, S, C) -> (B, S, C); the query, memory and its position terms, has been taken into account."""
        value, *places = self.project(memory)
        shape = (*memory.shape[:2], self.n_heads, -1)
        plan = self.sampler.plan(*(place.reshape(shape) for place in places))
        return self.output_proj(self.sampler(value.reshape(shape), *plan))  # type: ignore[no-any-return]

    def project(self, memory: Tensor) -> tuple[Tensor, ...]:
        """Values (B, S, C); x, y and logits (B, S, H * L * P)."""
        places = (self.projections[name](memory) + getattr(self, f"constant_{name}") for name in PARTS)
        return self.value_proj(memory), *places


class OneProjection(PixelAttention):
    """`PixelAttention` whose values, positions and logits are one matmul."""

    def __init__(self, separate: PixelAttention) -> None:
        nn.Module.__init__(self)
        self.n_heads, self.sampler, self.output_proj = separate.n_heads, separate.sampler, separate.output_proj
        layers = [separate.value_proj, *(separate.projections[name] for name in PARTS)]
        weights = [cast(nn.Linear, layer).weight for layer in layers]
        self.sizes = [len(weight) for weight in weights]
        self.projection = linear(torch.cat(weights))
        constants = [getattr(separate, f"constant_{name}") for name in PARTS]
        of_value = separate.value_proj.bias.expand(len(constants[0]), -1)
        self.register_buffer("constant", torch.cat((of_value, *constants), dim=1))

    def project(self, memory: Tensor) -> tuple[Tensor, ...]:
        """As `PixelAttention.project`."""
        return (self.projection(memory) + self.constant).split(self.sizes, dim=-1)


def fold_positions(graph: ExportGraph) -> None:
    """Fold position terms and reference points into constants of the projections: W (m + R) = W m + W R."""
    network = graph.network
    if network.level_embed is None:
        return
    shapes = network.config.spatial_shapes
    levels = [
        embed.expand(height * width, -1) for embed, (height, width) in zip(network.level_embed, shapes, strict=True)
    ]
    pos = network.pos[0] + torch.cat(levels)
    for layer in network.encoder:
        plain = cast(DeformableAttention, layer.attention)
        layer.attention = PixelAttention(plain, pos, network.reference_points[0], graph.placed(plain.n_heads))


def merge_projections(graph: ExportGraph) -> None:
    """One matmul for what an encoder layer projects of its memory; only after `fold_positions`, which makes it one."""
    for layer in graph.network.encoder:
        if isinstance(layer.attention, PixelAttention):
            layer.attention = OneProjection(layer.attention)


class FlatLayer(nn.Module):
    """An encoder layer on tokens without a batch axis: linear layers are then plain matmuls with bias."""

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        self.attention, self.norm, self.ffn = layer.attention, layer.norm, layer.ffn

    def forward(self, memory: Tensor, pos: Tensor, reference_points: Tensor, spatial_shapes: object) -> Tensor:
        """As `EncoderLayer.forward`."""
        attended = self.attention(memory + pos, reference_points, memory, spatial_shapes).flatten(0, 1)
        return self.ffn(self.norm(memory.flatten(0, 1) + attended)).reshape(memory.shape)  # type: ignore[no-any-return]


def flatten_tokens(graph: ExportGraph) -> None:
    """Feed-forward networks and norms on (B * S, C): engines fuse bias and ReLU into matmuls of two axes."""
    for i, layer in enumerate(graph.network.encoder):
        graph.network.encoder[i] = FlatLayer(cast(EncoderLayer, layer))


def placed_parameters(plain: DeformableAttention) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight (H * L * P, C) and bias (H * L * P) of x, y and logits; x and y as offsets in pixels."""
    offsets = plain.sampling_offsets
    weight, bias = offsets.weight.unflatten(0, (-1, 2)), offsets.bias.unflatten(0, (-1, 2))
    logits = (plain.attention_weights.weight, plain.attention_weights.bias)
    return {"x": (weight[:, 0], bias[:, 0]), "y": (weight[:, 1], bias[:, 1]), "logits": logits}


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer of these parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer
