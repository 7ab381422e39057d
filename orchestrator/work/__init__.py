"""What runs inside a trial or a worker: one file for every kind of job."""
