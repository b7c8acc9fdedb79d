"""Frozen models and pure functions that hold the decisions of hevcq, without I/O."""
