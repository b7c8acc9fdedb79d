"""Put a rendition in the place of an original, and back."""
