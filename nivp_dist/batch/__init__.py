"""Jobs of a batch system: Slurm."""
