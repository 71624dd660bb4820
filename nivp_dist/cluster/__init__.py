"""Processes, devices, decisions, signals."""
