"""`nivp bench speed gpu`: what a GPU computes, and how fast, within a given number of minutes."""
