"""Fits of the initial condition, refits of the present solution, and when to refit."""
