"""Run ffmpeg: progress, errors, known messages."""
