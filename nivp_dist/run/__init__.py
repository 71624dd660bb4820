"""One run: its state, the transitions of that state, the main loop, its files, and runs that are stored."""
