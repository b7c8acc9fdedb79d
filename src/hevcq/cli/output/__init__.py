"""Tables, progress and sentences."""
