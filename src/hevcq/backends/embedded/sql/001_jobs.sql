-- Version 1 of the data folder's database. A later version is another script in database.SCRIPTS;
-- this one never changes once released.

-- Waiting and held messages of every profile queue.
-- state: 0 ready, 1 in flight, 2 delayed. visible_at: wall seconds when 1 or 2 is ready again.
-- held: the attempt that holds the message, NULL when nobody does (never taken, or given back).
-- turn: the fair-share round it is delivered in. AUTOINCREMENT: an id in an old receipt is never
-- given to another message.
CREATE TABLE message (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  queue      TEXT    NOT NULL,
  state      INTEGER NOT NULL,
  turn       INTEGER NOT NULL,
  visible_at REAL    NOT NULL,
  attempts   INTEGER NOT NULL DEFAULT 0,
  held       INTEGER,
  owner      TEXT    NOT NULL DEFAULT '',
  grp        TEXT    NOT NULL DEFAULT '',
  sent_at    REAL    NOT NULL,
  body       TEXT    NOT NULL
);
-- Partial, so that a claim reads the head of one small tree whatever waits behind it.
CREATE INDEX message_ready  ON message (queue, turn)       WHERE state = 0;
CREATE INDEX message_hidden ON message (queue, visible_at) WHERE state > 0;
CREATE INDEX message_group  ON message (queue, grp, turn)  WHERE grp <> '';

CREATE TABLE dead_letter (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  queue         TEXT    NOT NULL,
  body          TEXT    NOT NULL,
  job_id        TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  failure_class TEXT    NOT NULL,
  attempts      INTEGER NOT NULL,
  tail          TEXT    NOT NULL,
  grp           TEXT    NOT NULL,
  buried_at     REAL    NOT NULL
);
CREATE INDEX dead_letter_queue ON dead_letter (queue);
CREATE INDEX dead_letter_job   ON dead_letter (job_id);

-- The ledger. lease_until, created_at and the other times are wall seconds.
CREATE TABLE job (
  seq              INTEGER PRIMARY KEY,
  job_id           TEXT    NOT NULL UNIQUE,
  bucket           TEXT    NOT NULL,
  key              TEXT    NOT NULL,
  version          TEXT    NOT NULL,
  size             INTEGER NOT NULL,
  profile          TEXT    NOT NULL,
  state            TEXT    NOT NULL,
  fence            INTEGER NOT NULL DEFAULT 0,
  failures         INTEGER NOT NULL DEFAULT 0,
  crashes          INTEGER NOT NULL DEFAULT 0,
  owner            TEXT    NOT NULL DEFAULT '',
  lease_until      REAL    NOT NULL DEFAULT 0,
  phase            TEXT,
  percent          REAL,
  speed            REAL,
  eta_s            REAL,
  reason           TEXT    NOT NULL DEFAULT '',
  failure_class    TEXT,
  rendition_key    TEXT,
  rendition_size   INTEGER,
  rendition_sha256 TEXT,
  certificate_key  TEXT,
  created_at       REAL    NOT NULL,
  updated_at       REAL    NOT NULL,
  started_at       REAL,
  finished_at      REAL,
  cpu_s            REAL
);
CREATE INDEX job_updated ON job (updated_at);
CREATE INDEX job_state   ON job (state, updated_at);
CREATE INDEX job_profile ON job (profile, state, updated_at);
CREATE INDEX job_key     ON job (key);

-- Who reopened a settled job, why, and what it was.
CREATE TABLE reopened (
  job_id TEXT NOT NULL,
  at     REAL NOT NULL,
  who    TEXT NOT NULL,
  why    TEXT NOT NULL,
  was    TEXT NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX reopened_job ON reopened (job_id, at);

CREATE TABLE remembered (
  source_sha256 TEXT NOT NULL,
  profile       TEXT NOT NULL,
  revision      TEXT NOT NULL,
  reason        TEXT NOT NULL,
  made_at       REAL NOT NULL,
  PRIMARY KEY (source_sha256, profile, revision)
) WITHOUT ROWID;

-- Library files that are linked as sources, never copied. path: the name's raw bytes.
CREATE TABLE source (
  source_id   TEXT    PRIMARY KEY,
  path        BLOB    NOT NULL,
  size        INTEGER NOT NULL,
  mtime_ns    INTEGER NOT NULL,
  inode       INTEGER NOT NULL,
  device      INTEGER NOT NULL,
  accepted_at REAL    NOT NULL
) WITHOUT ROWID;

-- Visible objects: this row is the publication, the bytes are in objects/<2 hex>/<64 hex>/<version>/.
CREATE TABLE object (
  key         TEXT    PRIMARY KEY,
  version     TEXT    NOT NULL,
  size        INTEGER NOT NULL,
  sha256      TEXT    NOT NULL,
  job_id      TEXT    NOT NULL,
  fence       INTEGER NOT NULL,
  metadata    TEXT    NOT NULL,
  modified_at REAL    NOT NULL
) WITHOUT ROWID;

-- Versions that no row of `object` names any more, until their bytes are removed: whoever replaced
-- or deleted them may die before that.
CREATE TABLE discarded (
  version TEXT PRIMARY KEY,
  key     TEXT NOT NULL
) WITHOUT ROWID;

-- The catalog: what scans learned. facts: which version of the facts `info` holds.
CREATE TABLE file (
  path     BLOB    NOT NULL UNIQUE,
  size     INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  inode    INTEGER NOT NULL,
  device   INTEGER NOT NULL,
  facts    TEXT    NOT NULL,
  info     TEXT,
  problem  TEXT
);

-- The catalog: which rendition belongs at which path.
CREATE TABLE placement (
  seq        INTEGER PRIMARY KEY,
  job_id     TEXT    NOT NULL UNIQUE,
  root       BLOB    NOT NULL,
  source     BLOB    NOT NULL,
  size       INTEGER NOT NULL,
  mtime_ns   INTEGER NOT NULL,
  inode      INTEGER NOT NULL,
  device     INTEGER NOT NULL,
  profile    TEXT    NOT NULL,
  mode       TEXT    NOT NULL,
  target     BLOB    NOT NULL,
  keep_days  REAL    NOT NULL,
  state      TEXT    NOT NULL,
  detail     TEXT    NOT NULL,
  retained   BLOB,
  sha256     TEXT    NOT NULL,
  updated_at REAL    NOT NULL
);
CREATE INDEX placement_updated ON placement (updated_at);
CREATE INDEX placement_state   ON placement (state, updated_at);
CREATE INDEX placement_source  ON placement (source);
CREATE INDEX placement_target  ON placement (target);
