"""The paper's tables and settings, and where ours differ."""
