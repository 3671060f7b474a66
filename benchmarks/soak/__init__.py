"""`make soak`: the long counts behind docs/reliability.md."""
