"""What to do with a source: skip it, or encode it in a stated way."""
