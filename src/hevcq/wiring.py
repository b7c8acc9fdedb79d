"""Settings to ports to use cases; the only module that knows both backends."""
