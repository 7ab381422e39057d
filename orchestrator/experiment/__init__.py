"""What was asked for: from YAML to a graph of jobs. No PyTorch runs here."""
