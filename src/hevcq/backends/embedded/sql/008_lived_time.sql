-- Version 8: the time lived through, as far as seen, because the clock alone deletes no original.
-- One row: seconds so far; the wall and highest wall time, uptime and start of the machine last seen.
CREATE TABLE lived (
  id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  total_s      REAL    NOT NULL,
  wall         REAL    NOT NULL,
  highest_wall REAL    NOT NULL,
  uptime_s     REAL    NOT NULL,
  boot         TEXT    NOT NULL
);

-- Since which of those seconds a job's original is kept.
CREATE TABLE kept_original (
  job_id  TEXT NOT NULL PRIMARY KEY,
  since_s REAL NOT NULL
) WITHOUT ROWID;
