-- What the rendition of a job does not keep of its source: sentences, as a JSON list.
ALTER TABLE job ADD COLUMN notices TEXT NOT NULL DEFAULT '[]';
