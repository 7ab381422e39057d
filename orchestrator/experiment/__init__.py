"""What a user asks for: from YAML to a graph of jobs. No PyTorch runs here."""
