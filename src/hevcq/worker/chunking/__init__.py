"""A video's split, its chunks and their join."""
