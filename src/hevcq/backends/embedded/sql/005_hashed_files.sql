-- Version 5: digests of renditions in place, valid while the file's status is as it was then.
-- certificate: SHA-256 of what a certificate states, if the gates proved it again.
CREATE TABLE hashed_file (
  path        BLOB    NOT NULL PRIMARY KEY,
  size        INTEGER NOT NULL,
  mtime_ns    INTEGER NOT NULL,
  inode       INTEGER NOT NULL,
  device      INTEGER NOT NULL,
  ctime_ns    INTEGER NOT NULL,
  sha256      TEXT    NOT NULL,
  certificate TEXT    NOT NULL
) WITHOUT ROWID;
