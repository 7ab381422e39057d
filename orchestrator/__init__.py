"""The paper's experiments as a graph of jobs on Ray, tracked in MLflow."""
