-- The journal of syncs: versions of files on servers, and how far their move is. Paths are raw bytes.
CREATE TABLE sync_entry (
  account TEXT    NOT NULL,
  path    BLOB    NOT NULL,
  version TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  since   REAL    NOT NULL,
  stage   TEXT    NOT NULL,
  file_id TEXT    NOT NULL,
  sha256  TEXT    NOT NULL,
  target  BLOB,
  detail  TEXT    NOT NULL,
  PRIMARY KEY (account, path)
) WITHOUT ROWID;

-- Bytes that ever arrived from an account, so that the same bytes never arrive twice.
CREATE TABLE sync_arrival (
  account TEXT    NOT NULL,
  sha256  TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  target  BLOB    NOT NULL,
  at      REAL    NOT NULL,
  PRIMARY KEY (account, sha256)
) WITHOUT ROWID;

-- Whether a server deletes only the version it is asked to; why_not is '' where it does.
CREATE TABLE sync_server (
  account TEXT NOT NULL PRIMARY KEY,
  at      REAL NOT NULL,
  why_not TEXT NOT NULL
) WITHOUT ROWID;
