"""Ratios against bare ffmpeg and against the floor, each in one interleaved run."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]
