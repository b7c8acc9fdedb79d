-- Version 4: a video that was renamed or moved is recognised by size and modification time.
CREATE INDEX placement_bytes ON placement (size, mtime_ns);
