"""How good a model is, point by point and score by score: see `python -m training.quality --help`."""
