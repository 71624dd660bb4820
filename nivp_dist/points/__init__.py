"""Collocation points and their weights: how they are drawn, spread evenly, and used to sample densities."""
