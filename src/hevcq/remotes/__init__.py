"""Files on other people's servers."""
