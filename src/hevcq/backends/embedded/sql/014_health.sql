-- The last whole read of each file of a library. sha256: of the bytes first read with this size and
-- time; another one at a later read is bit rot. spots: where damage is, as JSON. Paths are raw bytes.
CREATE TABLE health (
  path     BLOB    NOT NULL PRIMARY KEY,
  size     INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  inode    INTEGER NOT NULL,
  device   INTEGER NOT NULL,
  sha256   TEXT    NOT NULL,
  depth    TEXT    NOT NULL,
  health   TEXT    NOT NULL,
  detail   TEXT    NOT NULL,
  at       REAL    NOT NULL,
  spots    TEXT    NOT NULL
) WITHOUT ROWID;

-- Rounds that were begun and not ended: the next run goes on with them.
CREATE TABLE health_round (
  round TEXT NOT NULL PRIMARY KEY,
  at    REAL NOT NULL
) WITHOUT ROWID;
