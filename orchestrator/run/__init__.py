"""What is refused, which job runs next, and where; the only importer of Ray."""
