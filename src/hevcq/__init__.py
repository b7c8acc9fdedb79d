"""hevcq: a video re-encoding farm that people trust with their only copy."""

__version__ = "0.1.0"
