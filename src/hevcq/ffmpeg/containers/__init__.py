"""Read the structure of container files directly, for what ffprobe does not report."""
