"""Mutants of the sources, and the test that must notice each; see `python -m tests.chaos.mutants`."""
