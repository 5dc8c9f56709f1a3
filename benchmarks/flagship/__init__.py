"""Deterministic against Bayesian weights where training clusters are scarce."""
