-- Version 15: the statistics by month as well, so that years are read as quickly as days.
-- month: 12 times the year plus the month, counted from 0, in UTC.
CREATE TABLE history_month (
  month         INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  root          BLOB    NOT NULL,
  profile       TEXT    NOT NULL,
  codec         TEXT    NOT NULL,
  failure_class TEXT    NOT NULL,
  count         INTEGER NOT NULL,
  before        INTEGER NOT NULL,
  after         INTEGER NOT NULL,
  cpu_s         REAL    NOT NULL,
  PRIMARY KEY (month, name, root, profile, codec, failure_class)
) WITHOUT ROWID;
INSERT INTO history_month
SELECT 12 * CAST(strftime('%Y', day * 86400, 'unixepoch') AS INTEGER)
  + CAST(strftime('%m', day * 86400, 'unixepoch') AS INTEGER) - 1 AS month,
  name, root, profile, codec, failure_class, SUM(count), SUM(before), SUM(after), SUM(cpu_s)
FROM history GROUP BY month, name, root, profile, codec, failure_class;
