"""Uploaded videos: their record, and the rules of uploads."""
