"""What the paper says: its tables, its settings, and where ours are not its."""
