"""One page for one cluster."""
