"""Uploaded videos on AWS."""
