-- Version 3: how many failures of a job were held to be their worker's, and so are not counted.
ALTER TABLE job ADD COLUMN doubts INTEGER NOT NULL DEFAULT 0;
