"""Observed clusters beside mocks and literature."""
