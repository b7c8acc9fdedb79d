"""Child processes: start, limit, read, stop."""
