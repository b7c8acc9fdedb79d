"""Power cuts: what a disk may hold when it loses power, at every step of what was written."""
