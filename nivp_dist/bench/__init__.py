"""What `nivp bench` measures: errors against references, and speed against the published procedure."""
