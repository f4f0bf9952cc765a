"""Our coders beside DeepCABAC, zstd and the entropy, on the same integers."""
