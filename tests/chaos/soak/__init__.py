"""Does a worker that works for hours grow? `python -m tests.chaos.soak --minutes 120`."""
