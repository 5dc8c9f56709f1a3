"""What every folder uses: the version, whole-file writing, settings, threads, array types."""
