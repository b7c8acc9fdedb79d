"""Child processes: start, bound, read, stop."""
