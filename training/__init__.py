"""From photographs, or rendered people, to a checkpoint."""

__all__: list[str] = []
