"""Everything about the output folder, local or on an object store: a study's only memory."""
