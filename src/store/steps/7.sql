-- Version 7: links that open an account, the last sign-in, imported mail, account ids that are never used twice, and
-- keys that can be rotated.

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

-- Keys have a selector of their own, and may be several.
ALTER TABLE dkim_key RENAME TO dkim_key_6;
CREATE TABLE dkim_key (                          -- two for each domain, created with it; more while they are rotated
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  algorithm TEXT NOT NULL CHECK (algorithm IN ('rsa', 'ed25519')),
  state TEXT NOT NULL CHECK (state IN ('signing', 'next', 'retiring', 'retired')),   -- contract 3.9
  selector TEXT NOT NULL,
  private_sealed BLOB,                           -- PKCS #8 DER; NULL: retired
  public_key TEXT NOT NULL,                      -- base64, as in the record's p=
  created_at INTEGER NOT NULL,
  needed_at INTEGER,                             -- last time mail it signed was to be delivered; NULL unless retiring
  dns_status TEXT NOT NULL DEFAULT 'unchecked' CHECK (dns_status IN ('ok', 'missing', 'mismatch', 'unchecked')),
  dns_found TEXT NOT NULL DEFAULT '[]',          -- as in dns_check, which has those of the keys that sign
  PRIMARY KEY (domain_id, algorithm, state),
  UNIQUE (domain_id, selector)
) STRICT, WITHOUT ROWID;
INSERT INTO dkim_key (domain_id, algorithm, state, selector, private_sealed, public_key, created_at)
SELECT domain_id, algorithm, 'signing', iif(algorithm = 'rsa', 'mailkite', 'mailkite-ed'), private_sealed, public_key,
       created_at
FROM dkim_key_6;
DROP TABLE dkim_key_6;

CREATE TABLE former_key (
  id INTEGER PRIMARY KEY,
  purpose TEXT NOT NULL CHECK (purpose IN ('link', 'return_path', 'fingerprint')),
  key_sealed BLOB NOT NULL,
  replaced_at INTEGER NOT NULL
) STRICT;
