"""The health of a library: read every video whole, without encoding."""
