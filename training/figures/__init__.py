"""The paper's figures, and the curves of a run."""

from training.figures.curves import draw_curves, running_mean

__all__ = ["draw_curves", "running_mean"]
