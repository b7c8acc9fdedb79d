"""What ffprobe says of a file, as facts."""
