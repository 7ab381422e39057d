"""How much a job has to do, how long it takes, and how much memory it needs."""
