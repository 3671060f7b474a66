"""Pictures of people with key points: photographs and people rendered on the fly."""

__all__: list[str] = []
