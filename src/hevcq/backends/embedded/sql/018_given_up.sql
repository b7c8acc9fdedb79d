-- Events after `after_seq` up to `last_seq` that a receiver did not take for three days. They are kept
-- until a person sends them again, a month at most.
CREATE TABLE event_given_up (
  reader    TEXT    NOT NULL,
  after_seq INTEGER NOT NULL,
  last_seq  INTEGER NOT NULL,
  messages  INTEGER NOT NULL,
  at        REAL    NOT NULL,
  PRIMARY KEY (reader, last_seq)
) WITHOUT ROWID;
