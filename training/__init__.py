"""From photographs, or rendered people, to a checkpoint."""
