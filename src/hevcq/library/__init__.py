"""A person's media folder: find, place, replace, undo."""
