"""The heart: M(theta) v = F(theta), by Jacobian products over sharded points."""
