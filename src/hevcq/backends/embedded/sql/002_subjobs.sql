-- Version 2: videos that are split over many workers. A part is a row of `job` with a parent, so that
-- it is claimed, renewed and ended by the same statements; it is in no listing and no count.

-- split: how a job was split, as JSON, NULL where it was not. whole: why it must not be split again.
ALTER TABLE job ADD COLUMN split TEXT;
ALTER TABLE job ADD COLUMN whole TEXT NOT NULL DEFAULT '';
-- parent: the job a part belongs to, '' for a job. chunk: its number, NULL for the join.
ALTER TABLE job ADD COLUMN parent TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN part_split TEXT;
ALTER TABLE job ADD COLUMN chunk INTEGER;
ALTER TABLE job ADD COLUMN frames INTEGER;
CREATE INDEX job_parent ON job (parent, part_split, chunk) WHERE parent <> '';

-- Counting jobs reads this index alone, and so must not meet parts in it.
DROP INDEX job_profile;
CREATE INDEX job_profile ON job (profile, state, updated_at, parent) WHERE parent = '';
