-- The number of jobs by profile and state, kept in the transaction of each change, so that a status
-- does not read the whole table. Subjobs (those with a parent) are not counted.
CREATE TABLE job_count (
  profile TEXT    NOT NULL,
  state   TEXT    NOT NULL,
  count   INTEGER NOT NULL,
  PRIMARY KEY (profile, state)
) WITHOUT ROWID;
INSERT INTO job_count
SELECT profile, state, COUNT(*) FROM job WHERE parent = '' GROUP BY profile, state;

CREATE TRIGGER job_count_added AFTER INSERT ON job WHEN NEW.parent = '' BEGIN
  INSERT INTO job_count SELECT NEW.profile, NEW.state, 0
  WHERE NOT EXISTS (SELECT 1 FROM job_count WHERE profile = NEW.profile AND state = NEW.state);
  UPDATE job_count SET count = count + 1 WHERE profile = NEW.profile AND state = NEW.state;
END;
CREATE TRIGGER job_count_moved AFTER UPDATE OF state ON job
WHEN NEW.parent = '' AND NEW.state <> OLD.state BEGIN
  UPDATE job_count SET count = count - 1 WHERE profile = OLD.profile AND state = OLD.state;
  INSERT INTO job_count SELECT NEW.profile, NEW.state, 0
  WHERE NOT EXISTS (SELECT 1 FROM job_count WHERE profile = NEW.profile AND state = NEW.state);
  UPDATE job_count SET count = count + 1 WHERE profile = NEW.profile AND state = NEW.state;
END;
CREATE TRIGGER job_count_removed AFTER DELETE ON job WHEN OLD.parent = '' BEGIN
  UPDATE job_count SET count = count - 1 WHERE profile = OLD.profile AND state = OLD.state;
END;
