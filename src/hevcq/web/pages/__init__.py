"""The pages that people open, rendered on the server."""
