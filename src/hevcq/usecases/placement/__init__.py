"""Put finished renditions where they belong, and undo it."""
