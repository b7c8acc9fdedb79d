"""Operate the queues: status, pause, cancel, dead letters, reprocess."""
