"""Ingest a folder: scan, decide, enqueue, track."""
