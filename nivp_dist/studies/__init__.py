"""Sweeps: families of runs on this machine. Studies: measurements that answer a question about the method."""
