-- The tables of a database. Raise database.SCHEMA_VERSION with every change; a database of another
-- version is refused. Triggers: sqlite.sql, postgres.sql.

-- Waiting and held messages of every profile queue.
-- state: 0 ready, 1 in flight, 2 delayed. visible_at: wall seconds when a message in state 1 or 2 is
-- ready again. held: the attempt that holds the message, or NULL. turn: its fair-share round.
-- AUTOINCREMENT: an id in an old receipt never names another message.
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
-- Partial, so that a claim reads the head of a small index, however long the queue is.
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

-- The ledger: the fields of domain.job.JobRecord, with progress, rendition, split and subjob as JSON.
-- Times are wall seconds. parent: the job of a subjob, or ''. A subjob is claimed, renewed and ended by
-- the same statements, but is in no listing and no count. interruptions: attempts that ended with the
-- whole program (kill -9, power cut), which are no crash of the job. place: phase and percent at which the
-- last interruption happened, if known; the same place twice is a crash.
CREATE TABLE job (
  seq           INTEGER PRIMARY KEY,
  job_id        TEXT    NOT NULL UNIQUE,
  bucket        TEXT    NOT NULL,
  key           TEXT    NOT NULL,
  version       TEXT    NOT NULL,
  size          INTEGER NOT NULL,
  profile       TEXT    NOT NULL,
  state         TEXT    NOT NULL,
  fence         INTEGER NOT NULL DEFAULT 0,
  failures      INTEGER NOT NULL DEFAULT 0,
  crashes       INTEGER NOT NULL DEFAULT 0,
  suspected_worker_faults INTEGER NOT NULL DEFAULT 0,
  owner         TEXT    NOT NULL DEFAULT '',
  lease_until   REAL    NOT NULL DEFAULT 0,
  progress      TEXT,
  reason        TEXT    NOT NULL DEFAULT '',
  failure_class TEXT,
  rendition     TEXT,
  created_at    REAL    NOT NULL,
  updated_at    REAL    NOT NULL,
  started_at    REAL,
  finished_at   REAL,
  cpu_s         REAL,
  split         TEXT,
  subjob        TEXT,
  do_not_split_reason TEXT NOT NULL DEFAULT '',
  certificate_sha256  TEXT NOT NULL DEFAULT '',
  parent        TEXT    NOT NULL DEFAULT '',
  interruptions INTEGER NOT NULL DEFAULT 0,
  place         TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX job_updated ON job (updated_at);
CREATE INDEX job_state   ON job (state, updated_at);
-- For sorted lists. Size and key never change, unlike state and time.
CREATE INDEX job_size    ON job (state, size);
CREATE INDEX job_place   ON job (state, key);
-- Counts of jobs read this index only, so it must not contain subjobs.
CREATE INDEX job_profile ON job (profile, state, updated_at, parent) WHERE parent = '';
CREATE INDEX job_key     ON job (key);
CREATE INDEX job_parent  ON job (parent) WHERE parent <> '';

-- The number of jobs by profile and state, updated in the transaction of each change, so that `status`
-- does not read the whole table. Subjobs are not counted.
CREATE TABLE job_count (
  profile TEXT    NOT NULL,
  state   TEXT    NOT NULL,
  count   INTEGER NOT NULL,
  PRIMARY KEY (profile, state)
) WITHOUT ROWID;

CREATE TABLE remembered (
  source_sha256 TEXT NOT NULL,
  profile       TEXT NOT NULL,
  revision      TEXT NOT NULL,
  reason        TEXT NOT NULL,
  made_at       REAL NOT NULL,
  PRIMARY KEY (source_sha256, profile, revision)
) WITHOUT ROWID;

-- Library files that serve as sources. path: the raw bytes of the path.
CREATE TABLE source (
  source_id   TEXT    PRIMARY KEY,
  path        BLOB    NOT NULL,
  device      INTEGER NOT NULL
) WITHOUT ROWID;

-- Visible objects. A row publishes the version whose bytes are in objects/<2 hex>/<64 hex>/<version>/.
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

-- Replaced and deleted versions whose bytes must still be removed: the process may die before that.
CREATE TABLE discarded (
  version TEXT PRIMARY KEY,
  key     TEXT NOT NULL
) WITHOUT ROWID;

-- The catalog: results of scans. facts: the version of the facts in `info`.
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

-- The catalog: the path at which each rendition belongs.
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
-- Finds a renamed or moved video by size and modification time.
CREATE INDEX placement_bytes   ON placement (size, mtime_ns);

-- Digests of renditions, valid while the file's status is unchanged.
-- certificate: SHA-256 of a certificate's statements, if the gates proved them again.
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

-- The catalog: the cost of each encode, on which forecasts are based.
CREATE TABLE encode_cost (
  job_id      TEXT    PRIMARY KEY,
  at          REAL    NOT NULL,
  profile     TEXT    NOT NULL,
  encoder     TEXT    NOT NULL,
  preset      TEXT    NOT NULL,
  megapixels  REAL    NOT NULL,
  source_size INTEGER NOT NULL,
  output_size INTEGER NOT NULL,
  cpu_s       REAL    NOT NULL
) WITHOUT ROWID;
CREATE INDEX encode_cost_profile ON encode_cost (profile, at);

-- Lived time: how long hevcq has seen this machine run. The wall clock alone deletes no original.
-- One row: the seconds so far, and the highest wall time, uptime and boot id last seen.
CREATE TABLE lived (
  id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  total_s      REAL    NOT NULL,
  highest_wall REAL    NOT NULL,
  uptime_s     REAL    NOT NULL,
  boot         TEXT    NOT NULL
);

-- The lived time at which a job's original began to be kept.
CREATE TABLE kept_original (
  job_id  TEXT NOT NULL PRIMARY KEY,
  since_s REAL NOT NULL
) WITHOUT ROWID;

-- Uploaded videos. record: the whole record as JSON; the other columns serve searches.
CREATE TABLE video (
  video_id TEXT    PRIMARY KEY,
  owner    TEXT    NOT NULL,
  status   TEXT    NOT NULL,
  slug     TEXT,
  due_at   REAL,
  words    TEXT    NOT NULL,
  bytes    INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  record   TEXT    NOT NULL
) WITHOUT ROWID;
CREATE INDEX video_owner ON video (owner, status, video_id);
CREATE INDEX video_status ON video (status, video_id);
CREATE UNIQUE INDEX video_slug ON video (slug) WHERE slug IS NOT NULL;
CREATE INDEX video_due ON video (due_at, video_id) WHERE due_at IS NOT NULL;

-- Sums for quotas, updated in the transaction of each change. scope: 'farm', or 'owner:' and its id.
CREATE TABLE video_usage (
  scope  TEXT    PRIMARY KEY,
  videos INTEGER NOT NULL,
  open   INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) WITHOUT ROWID;

-- The journal of syncs: versions of files on servers. Paths are raw bytes.
-- sha256 is '' and target NULL until the version has landed.
CREATE TABLE sync_entry (
  account TEXT    NOT NULL,
  path    BLOB    NOT NULL,
  version TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  since   REAL    NOT NULL,
  sha256  TEXT    NOT NULL,
  target  BLOB,
  PRIMARY KEY (account, path)
) WITHOUT ROWID;

-- Bytes that arrived from an account, so that the same bytes never land twice.
-- landed is 0 from just before the file gets its name until the landing is recorded.
CREATE TABLE sync_arrival (
  account TEXT    NOT NULL,
  sha256  TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  target  BLOB    NOT NULL,
  landed  INTEGER NOT NULL,
  PRIMARY KEY (account, sha256)
) WITHOUT ROWID;

-- Pauses, which every worker reads before it receives.
-- profile: '' for all. since, until: wall seconds; until is NULL if the pause has no end.
CREATE TABLE pause (
  profile TEXT NOT NULL PRIMARY KEY,
  by      TEXT NOT NULL,
  since   REAL NOT NULL,
  until   REAL,
  running TEXT NOT NULL
) WITHOUT ROWID;

-- The processes that encode: each renews its row regularly and deletes it at its end. machine: the host
-- name. seen_at: its last sign of life. drained_by: the person who drained the machine.
-- ended: it stopped, and `facts` (JSON) may say why.
CREATE TABLE worker (
  owner      TEXT    NOT NULL PRIMARY KEY,
  machine    TEXT    NOT NULL,
  version    TEXT    NOT NULL,
  seen_at    REAL    NOT NULL,
  drained_by TEXT    NOT NULL DEFAULT '',
  ended      INTEGER NOT NULL DEFAULT 0,
  facts      TEXT    NOT NULL
) WITHOUT ROWID;

-- Events in order, for messages and statistics. Triggers insert an event in the transaction of its cause.
-- source: a source's key, or the subject of the event; source, path, root: raw bytes.
CREATE TABLE event (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  at            REAL    NOT NULL,
  name          TEXT    NOT NULL,
  job_id        TEXT    NOT NULL DEFAULT '',
  profile       TEXT    NOT NULL DEFAULT '',
  source        BLOB    NOT NULL,
  path          BLOB,
  root          BLOB,
  reason        TEXT    NOT NULL DEFAULT '',
  failure_class TEXT    NOT NULL DEFAULT '',
  before        INTEGER,
  after         INTEGER,
  cpu_s         REAL,
  video_id      TEXT    NOT NULL DEFAULT '',
  target        REAL,
  verified      REAL
);
CREATE INDEX event_of_machine ON event (name, source, at) WHERE job_id = '';
CREATE INDEX event_of_one_job ON event (job_id, seq) WHERE job_id <> '';

-- How far each reader has read the events: the receivers of messages, and the statistics.
-- busy_until: until then one process has claimed the reader. next_at: its next try.
CREATE TABLE event_reader (
  name       TEXT    NOT NULL PRIMARY KEY,
  seq        INTEGER NOT NULL,
  tries      INTEGER NOT NULL DEFAULT 0,
  next_at    REAL    NOT NULL DEFAULT 0,
  sent_at    REAL    NOT NULL DEFAULT 0,
  busy_until REAL    NOT NULL DEFAULT 0,
  problem    TEXT    NOT NULL DEFAULT ''
) WITHOUT ROWID;

-- The statistics: one row for each day and kind. day: days since 1970 in UTC. target, verified: sums of
-- the requested and the measured qualities of the `scored` events, which have both.
CREATE TABLE history (
  day           INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  root          BLOB    NOT NULL,
  profile       TEXT    NOT NULL,
  codec         TEXT    NOT NULL,
  failure_class TEXT    NOT NULL,
  count         INTEGER NOT NULL,
  before        INTEGER NOT NULL,
  after         INTEGER NOT NULL,
  cpu_s         REAL    NOT NULL,
  scored        INTEGER NOT NULL DEFAULT 0,
  target        REAL    NOT NULL DEFAULT 0,
  verified      REAL    NOT NULL DEFAULT 0,
  PRIMARY KEY (day, name, root, profile, codec, failure_class)
) WITHOUT ROWID;

-- The last check of each library file. sha256: of the bytes first read with this size and time; another
-- digest at a later check means bit rot. spots: the places of damage, as JSON. Paths are raw bytes.
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

-- Unfinished rounds of checks, which the next run continues.
CREATE TABLE health_round (
  round TEXT NOT NULL PRIMARY KEY,
  at    REAL NOT NULL
) WITHOUT ROWID;

-- Accounts of the page: users, tokens of programs, ended sessions, the sign-in token.
CREATE TABLE accounts (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  row TEXT NOT NULL,
  expires_at REAL,
  PRIMARY KEY (kind, key)
) WITHOUT ROWID;
