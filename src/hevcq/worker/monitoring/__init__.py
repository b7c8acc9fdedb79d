"""Metrics, health and scale-in of a worker."""
