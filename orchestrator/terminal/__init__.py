"""What a command prints in the terminal."""
