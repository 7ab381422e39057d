"""How much a job computes, how long it takes, and how much memory it needs."""
