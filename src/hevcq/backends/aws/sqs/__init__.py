"""Queues and dead-letter queues on SQS."""
