"""The parts of `python -m benchmarks.msda`, one job a file."""
