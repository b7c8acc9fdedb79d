"""Plan a source's processing: skip it, refuse it, or encode it in a stated way."""
