"""What a run leaves on the disk. Only ``checkpoints`` imports Orbax (and jax)."""
