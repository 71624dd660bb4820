"""A run: its state, the transitions from state to state, the main loop, and what is stored."""
