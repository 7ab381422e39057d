"""What is on disk, here or on an object store: the only memory of a study."""
