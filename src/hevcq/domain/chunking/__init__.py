"""How a long video is cut into chunks, and how far its chunks are."""
