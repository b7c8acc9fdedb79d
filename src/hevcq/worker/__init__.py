"""The worker: its loop, lease, handler and stop."""
