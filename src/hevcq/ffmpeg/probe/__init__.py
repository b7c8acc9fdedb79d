"""Probe files with ffprobe and parse the result."""
