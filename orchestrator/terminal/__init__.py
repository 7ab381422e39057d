"""What a person reads in the terminal while a command runs."""
