"""Everything that speaks to other people's servers."""
