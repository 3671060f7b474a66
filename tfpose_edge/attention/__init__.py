"""Deformable attention with a pluggable sampler."""

from tfpose_edge.attention.module import DeformableAttention
from tfpose_edge.attention.sample_then_project import SampleThenProject
from tfpose_edge.attention.samplers import SAMPLERS, Sampler, get_sampler, resolve_sampler

__all__ = ["SAMPLERS", "DeformableAttention", "SampleThenProject", "Sampler", "get_sampler", "resolve_sampler"]
