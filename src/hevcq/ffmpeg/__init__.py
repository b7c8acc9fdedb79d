"""The ffmpeg adapter: probe, build commands, encode, verify; process.child alone starts children."""
