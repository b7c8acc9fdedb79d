"""ffmpeg: probe, plan's command, encode and verify; process.py alone starts children."""
