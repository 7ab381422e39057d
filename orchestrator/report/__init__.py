"""The report: our numbers beside the paper's, from job folders alone."""
