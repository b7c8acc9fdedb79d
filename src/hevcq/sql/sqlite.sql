-- The triggers of a SQLite database, in addition to schema.sql.

-- Searches and sorted lists read these indexes only, not the records. PostgreSQL cannot index words of
-- this length, and stores long records separately anyway.
DROP INDEX video_owner;
CREATE INDEX video_owner ON video (owner, status, video_id, words, bytes);
DROP INDEX video_status;
CREATE INDEX video_status ON video (status, video_id, words, bytes);

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

CREATE TRIGGER video_added AFTER INSERT ON video BEGIN
  INSERT OR IGNORE INTO video_usage VALUES ('farm', 0, 0, 0), ('owner:' || NEW.owner, 0, 0, 0);
  UPDATE video_usage SET videos = videos + 1, open = open + (NEW.status = 'uploading'),
    bytes = bytes + NEW.bytes WHERE scope IN ('farm', 'owner:' || NEW.owner);
END;

CREATE TRIGGER video_changed AFTER UPDATE ON video
WHEN NEW.bytes <> OLD.bytes OR NEW.status <> OLD.status BEGIN
  UPDATE video_usage SET bytes = bytes + NEW.bytes - OLD.bytes,
    open = open + (NEW.status = 'uploading') - (OLD.status = 'uploading')
  WHERE scope IN ('farm', 'owner:' || NEW.owner);
END;

CREATE TRIGGER video_removed AFTER DELETE ON video BEGIN
  UPDATE video_usage SET videos = videos - 1, open = open - (OLD.status = 'uploading'),
    bytes = bytes - OLD.bytes WHERE scope IN ('farm', 'owner:' || OLD.owner);
END;

CREATE TRIGGER event_of_job AFTER UPDATE OF state ON job WHEN NEW.parent = '' AND
NEW.state <> OLD.state AND (NEW.state IN ('done', 'skipped', 'dead') OR NEW.failures > OLD.failures)
BEGIN
  INSERT INTO event (at, name, job_id, profile, source, reason, failure_class, before, after, cpu_s,
    target, verified)
  VALUES (NEW.updated_at, CASE WHEN NEW.state = 'done' THEN 'job.done'
    WHEN NEW.state = 'skipped' THEN 'job.skipped' WHEN NEW.state <> 'dead' THEN 'job.retry'
    WHEN NEW.failure_class = 'cancelled' THEN 'job.cancelled' ELSE 'job.failed' END,
    NEW.job_id, NEW.profile, CAST(NEW.key AS BLOB), NEW.reason, IFNULL(NEW.failure_class, ''), NEW.size,
    json_extract(NEW.rendition, '$.size'), NEW.cpu_s, json_extract(NEW.rendition, '$.target'),
    json_extract(NEW.rendition, '$.verified'));
END;

CREATE TRIGGER event_of_placement AFTER UPDATE OF state ON placement
WHEN NEW.state <> OLD.state AND NEW.state IN ('placed', 'replaced', 'undone', 'expired')
BEGIN
  INSERT INTO event (at, name, job_id, profile, source, path, root, before, after)
  VALUES (NEW.updated_at, 'video.' || NEW.state, NEW.job_id, NEW.profile, NEW.source,
    NEW.target, NEW.root, NEW.size, COALESCE(
    (SELECT json_extract(rendition, '$.size') FROM job WHERE job_id = NEW.job_id),
    (SELECT output_size FROM encode_cost WHERE job_id = NEW.job_id)));
END;

-- Insert an event when an uploaded video is ready or failed, in the same transaction.
CREATE TRIGGER event_of_video AFTER UPDATE OF status ON video
WHEN NEW.status <> OLD.status AND NEW.status IN ('done', 'failed')
BEGIN
  INSERT INTO event (at, name, source, reason, failure_class, before, video_id)
  VALUES (json_extract(NEW.record, '$.updated_at'),
    CASE WHEN NEW.status = 'done' THEN 'video.ready' ELSE 'video.failed' END,
    CAST(json_extract(NEW.record, '$.title') AS BLOB), json_extract(NEW.record, '$.reason'),
    IFNULL(json_extract(NEW.record, '$.failure_class'), ''),
    json_extract(NEW.record, '$.upload.size'), NEW.video_id);
END;
