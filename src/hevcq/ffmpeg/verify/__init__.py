"""The gates that a rendition must pass."""
