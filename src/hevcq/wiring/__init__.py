"""Composition: what each use case needs, built from the settings."""
