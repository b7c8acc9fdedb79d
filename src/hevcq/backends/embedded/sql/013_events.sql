-- Version 13: what happened, in order, for messages and statistics. Triggers write it in the transaction
-- of what it tells of. source: a source's key, or whom the event is about; path, root: raw bytes.
CREATE TABLE event (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  at            REAL    NOT NULL,
  name          TEXT    NOT NULL,
  job_id        TEXT    NOT NULL DEFAULT '',
  profile       TEXT    NOT NULL DEFAULT '',
  source        TEXT    NOT NULL DEFAULT '',
  path          BLOB,
  root          BLOB,
  reason        TEXT    NOT NULL DEFAULT '',
  failure_class TEXT    NOT NULL DEFAULT '',
  before        INTEGER,
  after         INTEGER,
  cpu_s         REAL
);
CREATE INDEX event_of_machine ON event (name, source, at) WHERE job_id = '';

-- How far each reader of the events is: the receivers of messages, and the statistics.
-- busy_until: while one process works for it. next_at: its next try. off: why it gets nothing more.
CREATE TABLE event_reader (
  name       TEXT    NOT NULL PRIMARY KEY,
  seq        INTEGER NOT NULL,
  tries      INTEGER NOT NULL DEFAULT 0,
  next_at    REAL    NOT NULL DEFAULT 0,
  sent_at    REAL    NOT NULL DEFAULT 0,
  busy_until REAL    NOT NULL DEFAULT 0,
  problem    TEXT    NOT NULL DEFAULT '',
  off        TEXT    NOT NULL DEFAULT ''
) WITHOUT ROWID;

-- The statistics: one row a day and kind. day: days since 1970 in UTC.
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
  PRIMARY KEY (day, name, root, profile, codec, failure_class)
) WITHOUT ROWID;

CREATE TRIGGER event_of_job AFTER UPDATE OF state ON job WHEN NEW.parent = '' AND
NEW.state <> OLD.state AND (NEW.state IN ('done', 'skipped', 'dead') OR NEW.failures > OLD.failures)
BEGIN
  INSERT INTO event (at, name, job_id, profile, source, reason, failure_class, before, after, cpu_s)
  VALUES (NEW.updated_at, CASE WHEN NEW.state = 'done' THEN 'job.done'
    WHEN NEW.state = 'skipped' THEN 'job.skipped' WHEN NEW.state <> 'dead' THEN 'job.retry'
    WHEN NEW.failure_class = 'cancelled' THEN 'job.cancelled' ELSE 'job.failed' END,
    NEW.job_id, NEW.profile, NEW.key, NEW.reason, IFNULL(NEW.failure_class, ''), NEW.size,
    NEW.rendition_size, NEW.cpu_s);
END;
CREATE TRIGGER event_of_placement AFTER UPDATE OF state ON placement
WHEN NEW.state <> OLD.state AND NEW.state IN ('placed', 'replaced', 'undone', 'expired')
BEGIN
  INSERT INTO event (at, name, job_id, profile, source, path, root, before, after)
  VALUES (NEW.updated_at, 'video.' || NEW.state, NEW.job_id, NEW.profile, NEW.source,
    NEW.target, NEW.root, NEW.size, COALESCE(
    (SELECT rendition_size FROM job WHERE job_id = NEW.job_id),
    (SELECT output_size FROM encode_cost WHERE job_id = NEW.job_id)));
END;

-- What happened before this version, as far as it is known.
INSERT INTO event (at, name, job_id, profile, source, path, root, reason, failure_class, before, after,
  cpu_s)
SELECT * FROM (
  SELECT updated_at AS at, CASE WHEN state = 'done' THEN 'job.done' WHEN state = 'skipped'
    THEN 'job.skipped' WHEN failure_class = 'cancelled' THEN 'job.cancelled' ELSE 'job.failed' END,
    job_id, profile, key, NULL, NULL, reason, IFNULL(failure_class, ''), size, rendition_size, cpu_s
  FROM job WHERE parent = '' AND state IN ('done', 'skipped', 'dead')
  UNION ALL
  SELECT p.updated_at, 'video.' || CASE p.state WHEN 'expired' THEN 'replaced' ELSE p.state END,
    p.job_id, p.profile, p.source, p.target, p.root, '', '', p.size,
    COALESCE(j.rendition_size, c.output_size), NULL
  FROM placement p LEFT JOIN job j ON j.job_id = p.job_id
  LEFT JOIN encode_cost c ON c.job_id = p.job_id
  WHERE p.state IN ('placed', 'replaced', 'expired')
) ORDER BY at;
