"""Split a video, encode its chunks, join them."""
