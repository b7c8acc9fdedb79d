"""Build ffmpeg's argument lists with pure functions."""
