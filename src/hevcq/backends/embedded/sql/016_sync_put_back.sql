-- Renditions of arrived bytes that were put back to their server: at which path, and when.
CREATE TABLE sync_put_back (
  account TEXT NOT NULL,
  sha256  TEXT NOT NULL,
  path    BLOB NOT NULL,
  at      REAL NOT NULL,
  PRIMARY KEY (account, sha256)
) WITHOUT ROWID;
