"""Uploaded videos: upload, follow, watch, share, delete."""
