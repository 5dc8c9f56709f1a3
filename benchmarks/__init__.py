"""Measurements: every number of the docs comes from one of these. Run as ``python -m benchmarks.NAME``."""
