"""Uploaded videos in a data folder."""
