"""ffmpeg's argument lists, built by pure functions."""
