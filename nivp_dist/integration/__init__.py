"""Time integration: tableaus, step control, and one accepted step. Nothing here knows the state of a run."""
