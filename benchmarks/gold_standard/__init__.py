"""Weight posteriors beside a long NUTS run."""
