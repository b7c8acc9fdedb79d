"""Measure and check a source before it is encoded."""
