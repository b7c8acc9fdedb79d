-- Version 9: attempts that ended with the whole program (kill -9, power cut) are no crash of the job.
-- place: phase and percent at which the last one ended, if known; the same one twice is a crash.
ALTER TABLE job ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN place TEXT NOT NULL DEFAULT '';
