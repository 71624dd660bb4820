"""What `nivp bench` measures: the speed of the package against the published procedure and other ways of doing the same."""
