"""The mocks beside published numbers."""
