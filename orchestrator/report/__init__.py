"""The report: ours beside the paper's, from job folders alone."""
