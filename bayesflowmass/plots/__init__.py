"""Figures: one per function, from plain arrays, one journal column wide."""
