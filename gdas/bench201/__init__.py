"""The search space of NAS-Bench-201, with a table of the true accuracy of every cell."""
