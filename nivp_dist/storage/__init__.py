"""The files of a run: its directory, lock, checkpoints, snapshots and JSON lines. Only checkpoints import jax."""
