"""Deformable attention with a pluggable sampler."""

from tfpose_edge.attention.module import DeformableAttention
from tfpose_edge.attention.sample_then_project import SampleThenProject
from tfpose_edge.attention.samplers import EXPORTABLE, SAMPLERS, Sampler, choose_sampler, get_sampler, resolve_sampler

__all__ = [
    "EXPORTABLE", "SAMPLERS", "DeformableAttention", "SampleThenProject", "Sampler", "choose_sampler", "get_sampler",
    "resolve_sampler",
]  # fmt: skip
