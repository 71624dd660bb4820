"""The velocity theta' = v from M(theta) v = F(theta, t), by Jacobian products over sharded points."""
