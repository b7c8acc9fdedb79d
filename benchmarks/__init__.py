"""Ratios against bare ffmpeg and against the floor, each in one interleaved run."""
