"""Frozen models and pure functions: what hevcq decides, with no input or output."""
