-- The catalog: what each encode took, which the forecast of the next ones learns from.
CREATE TABLE encode_cost (
  job_id      TEXT    PRIMARY KEY,
  at          REAL    NOT NULL,
  profile     TEXT    NOT NULL,
  encoder     TEXT    NOT NULL,
  preset      TEXT    NOT NULL,
  megapixels  REAL    NOT NULL,
  source_size INTEGER NOT NULL,
  output_size INTEGER NOT NULL,
  cpu_s       REAL    NOT NULL
) WITHOUT ROWID;
CREATE INDEX encode_cost_profile ON encode_cost (profile, at);
