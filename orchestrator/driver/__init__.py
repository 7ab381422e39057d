"""What the commands do that run or plan a study."""
