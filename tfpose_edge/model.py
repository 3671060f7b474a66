"""TFPose: crops in, key points out (paper, figure 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tfpose_edge.attention import DeformableAttention, Sampler, SampleThenProject, resolve_sampler
from tfpose_edge.backbone import build_backbone
from tfpose_edge.config import PoseConfig
from tfpose_edge.heads import HeatmapHead, KeypointHead, ScoreHead
from tfpose_edge.position import pixel_centres, sine_embedding
from tfpose_edge.transformer import DecoderLayer, EncoderLayer, QueryAttention

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255
IMAGENET_STD = (58.395, 57.12, 57.375)  # RGB, 0..255


class PoseOutput(NamedTuple):
    """What `TFPose.forward` returns."""

    keypoints: Tensor
    """(B, K, 2), (x, y) in fractions of the crop's width and height: `per_layer`'s last."""
    scores: Tensor
    """(B, K) in [0, 1]: the expected OKS of each key point."""
    per_layer: Tensor
    """(N_D, B, K, 2): the key points after every decoder layer."""
    memory: Tensor
    """(B, S, C): the encoder's output, for the auxiliary heat maps."""


class TFPose(nn.Module):
    """The network of the paper.

    Args:
        config: what to build.
        sampler: name of a sampler, or a callable with a sampler's signature; never stored in a checkpoint. "auto" is
            what suits the CPU; for a network that moves to a GPU, give `choose_sampler("auto", "cuda")`.
        sample_then_project: p2q attention (section 3.3) projects its samples and not the whole memory. The same
            parameters, key points and gradients at another cost; never stored in a checkpoint.
    """

    mean: Tensor
    std: Tensor
    pos: Tensor
    reference_points: Tensor

    def __init__(self, config: PoseConfig, sampler: str | Sampler = "auto", sample_then_project: bool = False) -> None:
        super().__init__()
        self.config = config
        self.sampler_name, self._sampler = resolve_sampler(sampler)
        c, d = config, config.d_model
        self.backbone = build_backbone(c.backbone, c.backbone_width)
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(self.backbone.channels[level], d, 1), nn.GroupNorm(32, d)) for level in c.levels
        )
        self.level_embed = nn.Parameter(torch.randn(len(c.levels), d) * 0.02) if c.num_encoder_layers else None
        self.encoder = nn.ModuleList(
            EncoderLayer(self._attention(), d, c.ffn_dim, c.dropout) for _ in range(c.num_encoder_layers)
        )
        self.query_embed = nn.Parameter(torch.randn(c.num_keypoints, d))
        self.query_pos = nn.Parameter(torch.randn(c.num_keypoints, d))
        self.reference_logits = nn.Parameter(torch.zeros(c.num_keypoints, 2))
        p2q = SampleThenProject if sample_then_project else DeformableAttention
        self.decoder = nn.ModuleList(
            DecoderLayer(
                QueryAttention(d, c.n_heads, c.dropout) if c.query_self_attention else None,
                self._attention(p2q), d, c.ffn_dim, c.dropout,
            )
            for _ in range(c.num_decoder_layers)
        )  # fmt: skip
        self.keypoint_heads = nn.ModuleList(KeypointHead(d) for _ in range(c.num_decoder_layers))
        self.score_head = ScoreHead(d)
        self.heatmap_head = HeatmapHead(d, c.heatmap_channels, c.num_keypoints) if c.heatmap_head else None
        self._register_constants()

    def forward(self, crops: Tensor) -> PoseOutput:
        """crops (B, 3, H, W) float32, RGB, 0..255 -> `PoseOutput`."""
        features = self.backbone((crops - self.mean) / self.std)
        memory = self.encode(self.project(features))
        per_layer, query = self.decode(memory)
        return PoseOutput(per_layer[-1], self.score_head(query), per_layer, memory)

    def project(self, features: dict[int, Tensor]) -> Tensor:
        """Backbone features to F0 (B, S, C): 1x1 convolutions, flattened and concatenated."""
        projected = [proj(features[level]) for proj, level in zip(self.input_proj, self.config.levels, strict=True)]
        return torch.cat([p.flatten(2).transpose(1, 2) for p in projected], dim=1)

    def encode(self, memory: Tensor) -> Tensor:
        """F0 (B, S, C) to the memory M (B, S, C); F0 itself when N_E is 0."""
        if self.level_embed is None:
            return memory
        pos = self.pos + torch.cat(
            [e.expand(h * w, -1) for e, (h, w) in zip(self.level_embed, self.config.spatial_shapes, strict=True)]
        )
        reference_points = self.reference_points.expand(memory.shape[0], -1, -1)
        for layer in self.encoder:
            memory = layer(memory, pos, reference_points, self.config.spatial_shapes)
        return memory

    def decode(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, S, C) to key points of every layer (N_D, B, K, 2), in [0, 1], and last queries (B, K, C)."""
        batch = memory.shape[0]
        query = self.query_embed.expand(batch, -1, -1)
        query_pos = self.query_pos.expand(batch, -1, -1)
        logits = self.reference_logits.expand(batch, -1, -1)
        per_layer = []
        for layer, head in zip(self.decoder, self.keypoint_heads, strict=True):
            query = layer(query, query_pos, logits.sigmoid(), memory, self.config.spatial_shapes)
            refined = logits + head(query)  # eq. 4, in logits
            per_layer.append(refined.sigmoid())
            logits = refined.detach() if self.config.detach_reference_points else refined
        return torch.stack(per_layer), query

    def heatmaps(self, memory: Tensor) -> Tensor:
        """Auxiliary heat maps (B, K, H / 4, W / 4) from the memory; ValueError if the network has no such head."""
        if self.heatmap_head is None:
            raise ValueError("this network was configured without the auxiliary head (heatmap_head=False)")
        return self.heatmap_head(memory, self.config.spatial_shapes[-1])  # type: ignore[no-any-return]

    def _attention(self, layer: type[DeformableAttention] = DeformableAttention) -> DeformableAttention:
        c = self.config
        return layer(c.d_model, c.n_heads, len(c.levels), c.n_points, self._sampler)

    def _register_constants(self) -> None:
        shapes, d = self.config.spatial_shapes, self.config.d_model
        constants = {
            "mean": torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1),
            "std": torch.tensor(IMAGENET_STD).reshape(3, 1, 1),
            "pos": torch.cat([sine_embedding(h, w, d) for h, w in shapes])[None],  # (1, S, C)
            "reference_points": pixel_centres(shapes)[None],  # (1, S, 2)
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
