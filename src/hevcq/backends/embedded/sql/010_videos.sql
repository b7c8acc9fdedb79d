-- Uploaded videos. record: the whole record as JSON; the columns beside it are what is looked for.
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

-- Sums for quotas, kept in the transaction of each change. scope: 'farm', or 'owner:' and its id.
CREATE TABLE video_usage (
  scope  TEXT    PRIMARY KEY,
  videos INTEGER NOT NULL,
  open   INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) WITHOUT ROWID;
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

-- Requests to create a video, by idempotency key: sent again, they find the video of the first.
CREATE TABLE video_request (
  request    TEXT PRIMARY KEY,
  video_id   TEXT NOT NULL,
  digest     TEXT NOT NULL,
  expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX video_request_expiry ON video_request (expires_at);
