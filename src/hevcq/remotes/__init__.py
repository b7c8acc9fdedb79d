"""Clients of other servers: WebDAV, the farm that a machine joined, receivers of messages."""
