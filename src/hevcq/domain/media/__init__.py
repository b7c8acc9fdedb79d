"""What a media file is: streams, containers, pixel formats, provenance."""
