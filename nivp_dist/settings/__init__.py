"""The settings of a run: the keys and their defaults, TOML files in and out, and overrides from the command line."""
