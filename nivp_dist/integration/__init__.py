"""Explicit Runge-Kutta steps of the parameters: tableaus, step control, stages, one accepted step."""
