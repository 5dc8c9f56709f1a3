"""What every room uses: the version, whole-file writing, settings, threads, array types."""
