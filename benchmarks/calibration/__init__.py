"""Calibration that can be nominal, and controls that must fail."""
