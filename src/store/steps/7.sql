-- Version 7: links that open an account, the last sign-in, imported mail, and account ids that are never used twice.

-- Edits the definition in place as step 6 did: a new table would take its rows' children along.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'id INTEGER PRIMARY KEY,', 'id INTEGER PRIMARY KEY AUTOINCREMENT,')
WHERE type = 'table' AND name = 'account';
PRAGMA writable_schema = RESET;
INSERT INTO sqlite_sequence (name, seq) SELECT 'account', max(id) FROM account HAVING max(id) > 0;

ALTER TABLE account ADD COLUMN signed_in_at INTEGER;
UPDATE account SET signed_in_at = (SELECT max(created_at) FROM session WHERE session.account_id = account.id);

CREATE TABLE account_link (
  token_hash BLOB PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  purpose TEXT NOT NULL CHECK (purpose IN ('sign_in', 'password_reset')),
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX account_link_by_account ON account_link (account_id);

CREATE TABLE imported_message (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  fingerprint BLOB NOT NULL,
  message_id INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
  PRIMARY KEY (account_id, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX imported_message_by_message ON imported_message (message_id);
