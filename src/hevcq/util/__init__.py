"""Shared helpers for time, logging, files and the host; imports nothing else of hevcq."""
