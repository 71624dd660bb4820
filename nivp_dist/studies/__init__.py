"""Families of runs that are carried out on this machine, and what they show: a table and a picture."""
