-- Version 12: pauses that a person set, read by every worker before it receives.
-- profile: '' for all. since, until: wall seconds; until is NULL without an end.
CREATE TABLE pause (
  profile TEXT NOT NULL PRIMARY KEY,
  by      TEXT NOT NULL,
  since   REAL NOT NULL,
  until   REAL,
  running TEXT NOT NULL
) WITHOUT ROWID;
