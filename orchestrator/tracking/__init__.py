"""MLflow: runs, models, and how they read; the only importer of it."""
