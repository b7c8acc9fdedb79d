-- What PostgreSQL needs in addition to schema.sql: functions that SQLite has, triggers, and marks of
-- commits. hevcq.sql.postgres creates all in one transaction.

CREATE FUNCTION json_extract(doc text, path text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT doc::json #>> string_to_array(substr(path, 3), '.') $$;
CREATE FUNCTION json_set(doc text, path text, value json) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_set(doc::jsonb, string_to_array(substr(path, 3), '.'), value::jsonb)::text $$;
CREATE FUNCTION instr(whole text, part text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT strpos(whole, part) $$;

-- A claim reads the head of one index, however long the queue is. SQLite's index ends with the id anyway.
DROP INDEX message_ready;
CREATE INDEX message_ready ON message (queue, turn, id) WHERE state = 0;

-- The number of the last transaction that each connection committed: if the answer to a COMMIT is lost,
-- it shows whether the transaction was committed.
CREATE TABLE commit_mark (
  session TEXT   NOT NULL PRIMARY KEY,
  number  BIGINT NOT NULL,
  at      DOUBLE PRECISION NOT NULL
);
-- files: the mark in files_dir, so that no other folder is used in its place.
CREATE TABLE hevcq_schema (version INTEGER NOT NULL, files TEXT NOT NULL DEFAULT '');

CREATE FUNCTION tell_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify(TG_TABLE_SCHEMA, queue)
  FROM (SELECT DISTINCT queue FROM changed WHERE state = 0) AS told;
  RETURN NULL;
END $$;
CREATE TRIGGER message_sent AFTER INSERT ON message
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_queue();
CREATE TRIGGER message_returned AFTER UPDATE ON message
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tell_queue();

CREATE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    UPDATE job_count SET count = count - 1 WHERE profile = OLD.profile AND state = OLD.state;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO job_count VALUES (NEW.profile, NEW.state, 1)
    ON CONFLICT (profile, state) DO UPDATE SET count = job_count.count + 1;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER job_count_added AFTER INSERT ON job FOR EACH ROW
WHEN (NEW.parent = '') EXECUTE FUNCTION count_job();
CREATE TRIGGER job_count_moved AFTER UPDATE OF state ON job FOR EACH ROW
WHEN (NEW.parent = '' AND NEW.state <> OLD.state) EXECUTE FUNCTION count_job();
CREATE TRIGGER job_count_removed AFTER DELETE ON job FOR EACH ROW
WHEN (OLD.parent = '') EXECUTE FUNCTION count_job();

CREATE FUNCTION sum_video() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    UPDATE video_usage SET videos = videos - 1, open = open - (OLD.status = 'uploading')::int,
      bytes = bytes - OLD.bytes WHERE scope IN ('farm', 'owner:' || OLD.owner);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO video_usage VALUES ('farm', 0, 0, 0), ('owner:' || NEW.owner, 0, 0, 0)
    ON CONFLICT DO NOTHING;
    UPDATE video_usage SET videos = videos + 1, open = open + (NEW.status = 'uploading')::int,
      bytes = bytes + NEW.bytes WHERE scope IN ('farm', 'owner:' || NEW.owner);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER video_changed AFTER INSERT OR UPDATE OR DELETE ON video
FOR EACH ROW EXECUTE FUNCTION sum_video();

-- Readers continue after the last number they read, so numbers must become visible in order.
CREATE FUNCTION order_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1751479907, hashtext(TG_TABLE_SCHEMA));
  NEW.seq := nextval('event_seq_seq');
  RETURN NEW;
END $$;
CREATE TRIGGER event_ordered BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION order_event();

CREATE FUNCTION tell_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO event (at, name, job_id, profile, source, reason, failure_class, before, after, cpu_s,
    target, verified)
  VALUES (NEW.updated_at, CASE WHEN NEW.state = 'done' THEN 'job.done'
    WHEN NEW.state = 'skipped' THEN 'job.skipped' WHEN NEW.state <> 'dead' THEN 'job.retry'
    WHEN NEW.failure_class = 'cancelled' THEN 'job.cancelled' ELSE 'job.failed' END,
    NEW.job_id, NEW.profile, convert_to(NEW.key, 'UTF8'), NEW.reason,
    COALESCE(NEW.failure_class, ''), NEW.size, json_extract(NEW.rendition, '$.size')::bigint,
    NEW.cpu_s, json_extract(NEW.rendition, '$.target')::float8,
    json_extract(NEW.rendition, '$.verified')::float8);
  RETURN NULL;
END $$;
CREATE TRIGGER event_of_job AFTER UPDATE OF state ON job FOR EACH ROW
WHEN (NEW.parent = '' AND NEW.state <> OLD.state
  AND (NEW.state IN ('done', 'skipped', 'dead') OR NEW.failures > OLD.failures))
EXECUTE FUNCTION tell_job();

CREATE FUNCTION tell_placement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO event (at, name, job_id, profile, source, path, root, before, after)
  VALUES (NEW.updated_at, 'video.' || NEW.state, NEW.job_id, NEW.profile, NEW.source,
    NEW.target, NEW.root, NEW.size,
    (SELECT json_extract(rendition, '$.size')::bigint FROM job WHERE job_id = NEW.job_id));
  RETURN NULL;
END $$;
CREATE TRIGGER event_of_placement AFTER UPDATE OF state ON placement FOR EACH ROW
WHEN (NEW.state <> OLD.state AND NEW.state IN ('placed', 'replaced', 'undone', 'expired'))
EXECUTE FUNCTION tell_placement();

CREATE FUNCTION tell_video() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO event (at, name, source, reason, failure_class, before, video_id)
  VALUES (json_extract(NEW.record, '$.updated_at')::float8,
    CASE WHEN NEW.status = 'done' THEN 'video.ready' ELSE 'video.failed' END,
    convert_to(json_extract(NEW.record, '$.title'), 'UTF8'), json_extract(NEW.record, '$.reason'),
    COALESCE(json_extract(NEW.record, '$.failure_class'), ''),
    json_extract(NEW.record, '$.upload.size')::bigint, NEW.video_id);
  RETURN NULL;
END $$;
CREATE TRIGGER event_of_video AFTER UPDATE OF status ON video FOR EACH ROW
WHEN (NEW.status <> OLD.status AND NEW.status IN ('done', 'failed')) EXECUTE FUNCTION tell_video();
