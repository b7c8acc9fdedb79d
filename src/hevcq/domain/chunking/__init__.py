"""Split a long video into chunks, and judge the progress of the chunks."""
