"""What `nivp bench` measures: the package against the published procedure and with other ways to do the same."""
