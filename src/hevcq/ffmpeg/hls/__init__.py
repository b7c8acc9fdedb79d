"""HLS: the encode of a ladder, its playlists and images, and the gates of the whole set."""
