"""Measure what hevcq serves, accepts wrongly and loses, on clips that nobody tuned it to."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests")]
