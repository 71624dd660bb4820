"""Fits of the network: to the initial condition, and to the present solution at a restart."""
