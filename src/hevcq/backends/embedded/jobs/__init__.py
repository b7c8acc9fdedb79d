"""Queues and ledger in the embedded database."""
