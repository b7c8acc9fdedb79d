"""Commands on jobs, workers and the service."""
