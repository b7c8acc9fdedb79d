"""Real processes, really killed: `python -m tests.chaos.kills --kills 1000 --stops 200`."""
