"""One frozen model of every setting, read once at the edge."""
