"""Encoder and decoder layers (paper, sections 3.2 and 3.3); post-norm, as Deformable DETR.

Deviation from the paper: section 3.3 names the memory as the query of p2q attention and the queries as its value;
that is a slip of the pen, and here the queries ask and the memory answers.
"""

from __future__ import annotations

from torch import Tensor, nn

from tfpose_edge.attention import DeformableAttention


class FeedForward(nn.Module):
    """Linear, ReLU, linear, residual, LayerNorm."""

    def __init__(self, d_model: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm(x + self.dropout(self.linear2(hidden)))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """p2p: deformable self-attention of the memory's pixels, then the feed-forward network."""

    def __init__(self, attention: DeformableAttention, d_model: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.norm = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, memory: Tensor, pos: Tensor, reference_points: Tensor, spatial_shapes: tuple[tuple[int, int], ...]
    ) -> Tensor:
        """memory (B, S, C), pos (1, S, C), reference_points (B, S, 2) -> memory (B, S, C)."""
        attended = self.attention(memory + pos, reference_points, memory, spatial_shapes)
        return self.ffn(self.norm(memory + self.dropout(attended)))  # type: ignore[no-any-return]


class QueryAttention(nn.Module):
    """q2q: multi-head self-attention of the K queries; position goes to query and key, not to the value."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def weights(self, query: Tensor, query_pos: Tensor) -> Tensor:
        """Attention (B, H, K, K) of every query (row) to every query (column); rows sum to 1."""
        placed = query + query_pos
        q, k = self._heads(self.q_proj(placed)), self._heads(self.k_proj(placed))
        scaled: Tensor = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        return scaled.softmax(-1)

    def forward(self, query: Tensor, query_pos: Tensor) -> Tensor:
        """query (B, K, C), query_pos (B, K, C) -> (B, K, C)."""
        mixed = self.dropout(self.weights(query, query_pos)) @ self._heads(self.v_proj(query))  # (B, H, K, D)
        return self.out_proj(mixed.transpose(1, 2).reshape(query.shape))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        batch, n_queries, channels = x.shape
        return x.reshape(batch, n_queries, self.n_heads, channels // self.n_heads).transpose(1, 2)


class DecoderLayer(nn.Module):
    """q2q attention (optional), p2q deformable attention into the memory, feed-forward network."""

    def __init__(
        self, query_attention: QueryAttention | None, attention: DeformableAttention, d_model: int, ffn_dim: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.query_attention = query_attention
        self.query_norm = nn.LayerNorm(d_model) if query_attention is not None else None
        self.attention = attention
        self.norm = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, query_pos: Tensor, reference_points: Tensor, memory: Tensor,
        spatial_shapes: tuple[tuple[int, int], ...],
    ) -> Tensor:  # fmt: skip
        """query and query_pos (B, K, C), reference_points (B, K, 2) in the crop, memory (B, S, C) -> (B, K, C)."""
        if self.query_attention is not None and self.query_norm is not None:
            query = self.query_norm(query + self.dropout(self.query_attention(query, query_pos)))
        attended = self.attention(query + query_pos, reference_points, memory, spatial_shapes)
        return self.ffn(self.norm(query + self.dropout(attended)))  # type: ignore[no-any-return]
