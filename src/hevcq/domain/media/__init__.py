"""Model a media file: streams, containers, pixel formats and provenance."""
