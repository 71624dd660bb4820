"""`nivp bench faults`: what becomes of a tiny run when its files are damaged and its processes killed."""
