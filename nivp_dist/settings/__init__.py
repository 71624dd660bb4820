"""The settings of a run: their model, TOML in and out, their keys, and overrides from the command line."""
