"""Measure what hevcq serves, accepts wrongly and loses, on clips that nobody tuned it to."""
