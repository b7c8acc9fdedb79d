"""Look after jobs: status, cancel, dead letters, reprocess."""
