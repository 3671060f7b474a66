"""Measurements: commands that time what the README claims."""
