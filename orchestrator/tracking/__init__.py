"""MLflow: runs, models, and their names and tags; no other folder imports it."""
