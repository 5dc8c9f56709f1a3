"""Figures that test a model."""
