"""Tell people and programs what happened."""
