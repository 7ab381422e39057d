"""A search step as one static list of launches."""
