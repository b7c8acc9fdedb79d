"""State what codecs, containers and encoders can carry."""
