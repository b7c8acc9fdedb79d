"""Encode the chunks of a video, and join them."""
