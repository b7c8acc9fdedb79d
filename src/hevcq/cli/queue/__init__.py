"""Commands on queues and jobs."""
