"""What `nivp bench` measures: the errors of every shipped problem against its reference, and the speed of the package."""
