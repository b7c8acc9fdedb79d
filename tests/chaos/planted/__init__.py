"""Planted bugs: would the tests notice? `python -m tests.chaos.planted` asks, one bug at a time."""
