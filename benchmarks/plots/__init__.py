"""Figures that only benchmarks draw."""
