"""What `nivp bench` measures: errors against references, speed against the published procedure, and what faults do to a
run."""
