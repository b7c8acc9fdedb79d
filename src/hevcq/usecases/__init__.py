"""What a person can ask for, over ports only."""
