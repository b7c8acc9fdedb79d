-- Uploaded videos tell when they are ready or failed, in the transaction that notes it.
ALTER TABLE event ADD COLUMN video_id TEXT NOT NULL DEFAULT '';
CREATE TRIGGER event_of_video AFTER UPDATE OF status ON video
WHEN NEW.status <> OLD.status AND NEW.status IN ('done', 'failed')
BEGIN
  INSERT INTO event (at, name, source, reason, failure_class, before, video_id)
  VALUES (json_extract(NEW.record, '$.updated_at'),
    CASE WHEN NEW.status = 'done' THEN 'video.ready' ELSE 'video.failed' END,
    json_extract(NEW.record, '$.title'), json_extract(NEW.record, '$.reason'),
    IFNULL(json_extract(NEW.record, '$.failure_class'), ''),
    json_extract(NEW.record, '$.upload.size'), NEW.video_id);
END;
