-- Who may use the page: users, programs' tokens, sessions that were signed out of, the sign-in token.
CREATE TABLE accounts (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    row TEXT NOT NULL,
    expires_at REAL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
