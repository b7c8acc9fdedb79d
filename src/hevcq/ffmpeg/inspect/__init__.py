"""What is measured of a source before it is encoded."""
