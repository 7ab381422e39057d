"""What runs inside a trial or a worker: one file for each kind of job."""
