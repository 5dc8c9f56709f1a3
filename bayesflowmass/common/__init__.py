"""What every room uses: the version, whole-file writing, threads, array types."""
